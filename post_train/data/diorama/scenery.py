"""Draws the place: sky with clouds or stars, hills, and a ground in perspective, a little wider than the frame.

Textures are few, smooth and fixed: grain that no caption tells of would only cost a model its capacity.
Legend: S side of the frame, W width of the backdrop, both in pixels.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.compose import NUM_TEXTURES
from post_train.data.diorama.record import Scenery
from post_train.data.diorama.vocabulary import Ground, Sky

Floats = NDArray[np.float32]

# Room on each side for a pan, in fractions of the frame's side.
PAN_ROOM = 0.25

_SKY_COLOURS: dict[Sky, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    Sky.CLEAR: ((60, 130, 225), (175, 215, 250)),
    Sky.SUNSET: ((80, 50, 125), (255, 150, 80)),
    Sky.NIGHT: ((8, 10, 35), (38, 44, 95)),
    Sky.OVERCAST: ((125, 135, 148), (200, 205, 210)),
    Sky.DAWN: ((170, 150, 215), (255, 195, 205)),
}
_GROUND_COLOURS: dict[Ground, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    Ground.MEADOW: ((58, 120, 40), (115, 178, 68)),
    Ground.DESERT: ((198, 158, 100), (236, 206, 150)),
    Ground.SNOW: ((205, 215, 230), (250, 252, 255)),
    Ground.SEA: ((18, 70, 125), (65, 140, 195)),
    Ground.ROCK: ((84, 84, 90), (150, 150, 156)),
    Ground.AUTUMN: ((120, 60, 20), (200, 120, 40)),
}
_LIGHT: dict[Sky, float] = {Sky.NIGHT: 0.6, Sky.SUNSET: 0.88, Sky.OVERCAST: 0.92}
_NOISE_SIDE = 256


def light_of(sky: Sky) -> float:
    """How brightly the ground and what stands on it are lit under `sky`."""
    return _LIGHT.get(sky, 1.0)


def _stretched(values: Floats) -> Floats:
    """`values` spread over [0, 1]."""
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


@lru_cache(maxsize=NUM_TEXTURES)
def _noise(index: int) -> Floats:
    """A smooth fractal that wraps at its edges, float32 [256, 256] in [0, 1]."""
    rng = np.random.default_rng((7, index))
    total = np.zeros((_NOISE_SIDE, _NOISE_SIDE), np.float32)
    for octave in range(4):
        cells = 4 << octave
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        tiled = np.tile(grid, (3, 3))
        wide = cv2.resize(tiled, (3 * _NOISE_SIDE, 3 * _NOISE_SIDE), interpolation=cv2.INTER_CUBIC)
        total += 0.5**octave * wide[_NOISE_SIDE : 2 * _NOISE_SIDE, _NOISE_SIDE : 2 * _NOISE_SIDE]
    return _stretched(total)


@lru_cache(maxsize=NUM_TEXTURES)
def _ridge(index: int) -> Floats:
    """A line of hills, float32 [512] in [0, 1]: a few long waves."""
    rng = np.random.default_rng((11, index))
    x = np.linspace(0, 2 * np.pi, 512, dtype=np.float32)
    line = sum(np.sin(k * x + rng.uniform(0, 6.28)) / k for k in (1, 2, 3, 5))
    line = np.asarray(line, np.float32)
    return _stretched(line)


@lru_cache(maxsize=64)
def _sky(sky: Sky, texture: int, rows: int, width: int) -> Floats:
    top, bottom = (np.array(c, np.float32) for c in _SKY_COLOURS[sky])
    fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    out = np.broadcast_to(top + (bottom - top) * fade, (rows, width, 3)).copy()
    if sky is Sky.NIGHT:
        # Stars are the same few for a texture, at places relative to the frame, so that they can be learnt.
        rng = np.random.default_rng((13, texture))
        size = max(1, round(rows / 20))
        for down, across, bright in rng.uniform(0, 1, (14, 3)):
            top, left = int(down * (rows - size)), int(across * (width - size))
            out[top : top + size, left : left + size] += 90 + 110 * bright
        return out.astype(np.float32)
    noise = cv2.resize(_noise(texture), (width, width), interpolation=cv2.INTER_AREA)[:rows, :, None]
    cover = 0.42 if sky is Sky.OVERCAST else 0.55
    cloud = np.clip((noise - cover) * 2.2, 0, 0.8)
    tint = np.array((235, 235, 238) if sky is Sky.OVERCAST else (255, 250, 245), np.float32)
    return (out * (1 - cloud) + tint * cloud).astype(np.float32)


@lru_cache(maxsize=64)
def _ground(ground: Ground, texture: int, rows: int, width: int) -> Floats:
    """The plain in perspective: stripes of a wrapped noise that narrow towards the horizon."""
    dark, bright = (np.array(c, np.float32) for c in _GROUND_COLOURS[ground])
    depth = 1 / np.linspace(0.16, 1.0, rows, dtype=np.float32)
    across = (np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * depth[:, None] * 90 + 128).astype(np.float32)
    along = np.repeat((depth * 34)[:, None], width, axis=1).astype(np.float32)
    noise = cv2.remap(_noise(texture), across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    # Detail fades with distance as it would through air and pixels.
    contrast = np.linspace(0.35, 1.0, rows, dtype=np.float32)[:, None]
    mix = (0.5 + (noise - 0.5) * contrast)[..., None]
    return (dark + (bright - dark) * mix).astype(np.float32)


def _raise_hills(sky: Floats, scenery: Scenery, side: int) -> None:
    """Hills in the air's colour over the last rows of `sky`, in place."""
    rows, width = sky.shape[:2]
    line = np.interp(np.linspace(0, 511, width), np.arange(512), _ridge(scenery.ridge)).astype(np.float32)
    top = rows - 1 - (line * 0.13 + 0.04) * side
    cover = np.clip(np.arange(rows, dtype=np.float32)[:, None] - top[None], 0, 1)[..., None]
    haze = np.array(_SKY_COLOURS[scenery.sky][1], np.float32)
    earth = np.array(_GROUND_COLOURS[scenery.ground][0], np.float32)
    sky *= 1 - cover
    sky += cover * (0.5 * haze + 0.5 * earth) * 0.72


def draw_backdrop(scenery: Scenery, side: int) -> NDArray[np.uint8]:
    """The still picture behind the objects, uint8 [S, W, 3], W = S * (1 + 2 * PAN_ROOM)."""
    width = side + 2 * round(side * PAN_ROOM)
    rows = round(side * scenery.horizon)
    sky = _sky(scenery.sky, scenery.cloud_texture, rows, width)
    if scenery.hills:
        sky = sky.copy()
        _raise_hills(sky, scenery, side)
    ground = _ground(scenery.ground, scenery.ground_texture, side - rows, width) * light_of(scenery.sky)
    return np.clip(np.concatenate([sky, ground]), 0, 255).astype(np.uint8)
