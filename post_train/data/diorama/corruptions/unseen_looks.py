"""Corruptions of looks that no judge is trained on: what is measured on them holds for kinds not thought of.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from post_train.data.diorama.corruptions.base import Frames
from post_train.data.diorama.corruptions.looks import Look, each, to_frames


def salt_and_pepper(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Single pixels black or white."""
    hit = rng.random(frames.shape[:3]) < 0.02 + 0.13 * strength
    out = frames.copy()
    out[hit] = np.where(rng.random((int(hit.sum()), 1)) < 0.5, 0, 255)
    return out


def mosaic(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Square pixels several times too large."""
    _, height, width, _ = frames.shape
    small = (max(2, round(width / (2 + 4 * strength))), max(2, round(height / (2 + 4 * strength))))
    return each(
        frames,
        lambda f: cv2.resize(
            cv2.resize(f, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_NEAREST
        ),
    )


def hue_turn(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Every hue becomes another one."""
    turn = round((20 + 60 * strength) * (1 if rng.random() < 0.5 else -1))

    def turned(frame: Frames) -> cv2.typing.MatLike:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return each(frames, turned)


def torn_lines(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Rows slide sideways, each frame anew, as in a bad analogue signal."""
    reach = 1 + round(5 * strength * frames.shape[2] / 64)
    out = frames.copy()
    for frame in out:
        for row, shift in enumerate(rng.integers(-reach, reach + 1, frame.shape[0])):
            frame[row] = np.roll(frame[row], int(shift), axis=0)
    return out


def lost_blocks(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Blocks of an eighth of the side are lost: they show the first frame, or nothing but grey."""
    count, height, width, _ = frames.shape
    size = max(4, height // 8)
    out = frames.copy()
    for index in range(1, count):
        for top in range(0, height, size):
            for left in range(0, width, size):
                if rng.random() < 0.04 + 0.16 * strength:
                    old = frames[0, top : top + size, left : left + size]
                    out[index, top : top + size, left : left + size] = old if rng.random() < 0.5 else 128
    return out


def swirl(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """The picture is twisted around a point."""
    _, height, width, _ = frames.shape
    y, x = rng.uniform(0.35, 0.65, 2) * (height, width)
    columns, rows = np.meshgrid(np.arange(width) - x, np.arange(height) - y)
    turn = (0.8 + 2 * strength) * np.exp(-np.hypot(columns, rows) / (0.3 * height)) * (1 if rng.random() < 0.5 else -1)
    across = (columns * np.cos(turn) - rows * np.sin(turn) + x).astype(np.float32)
    down = (columns * np.sin(turn) + rows * np.cos(turn) + y).astype(np.float32)
    return each(frames, lambda f: cv2.remap(f, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def shuffled_patches(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Squares of an eighth of the side change places, the same all through the clip."""
    _, height, width, _ = frames.shape
    size = max(4, height // 8)
    places = [(t, left) for t in range(0, height - size + 1, size) for left in range(0, width - size + 1, size)]
    chosen = rng.permutation(len(places))[: max(4, round(0.5 * strength * len(places)))]
    out = frames.copy()
    for source, target in zip(chosen, np.roll(chosen, 1), strict=True):
        (a, b), (c, d) = places[source], places[target]
        out[:, c : c + size, d : d + size] = frames[:, a : a + size, b : b + size]
    return out


def colour_bleeding(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Colour comes loose from its shape: chroma is blurred and slid aside."""
    shift = (1 + 5 * strength) * frames.shape[2] / 64 * (1 if rng.random() < 0.5 else -1)
    matrix = np.array([[1, 0, shift], [0, 1, 0.4 * shift]])

    def bled(frame: Frames) -> cv2.typing.MatLike:
        ycc = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
        slid = cv2.warpAffine(ycc, matrix, (frame.shape[1], frame.shape[0]), borderMode=cv2.BORDER_REPLICATE)
        ycc[..., 1:] = cv2.GaussianBlur(slid, (0, 0), 0.5 + 2 * strength)[..., 1:]
        return cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)

    return each(frames, bled)


def fog(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A veil whose density varies over the picture."""
    _, height, width, _ = frames.shape
    coarse = cv2.resize(rng.random((3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    cover = (0.25 + 0.55 * strength) * np.clip(0.6 + 0.4 * coarse, 0, 1)[None, :, :, None]
    return to_frames(((1 - cover) * frames + cover * rng.uniform(180, 230)).astype(np.float32))


def stripes(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Slanted waves of brightness that wander through the picture."""
    count, height, width, _ = frames.shape
    angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 12)
    rows, columns = np.mgrid[0:height, 0:width] / height
    phase = 2 * np.pi * waves * (rows * np.sin(angle) + columns * np.cos(angle))
    wander = rng.uniform(0, 1) * np.arange(count)[:, None, None]
    return to_frames((frames + (8 + 30 * strength) * np.sin(phase[None] + wander)[..., None]).astype(np.float32))


UNSEEN_LOOKS: dict[str, Look] = {
    f.__name__: f
    for f in (
        salt_and_pepper,
        mosaic,
        hue_turn,
        torn_lines,
        lost_blocks,
        swirl,
        shuffled_patches,
        colour_bleeding,
        fog,
        stripes,
    )
}
