"""Draws a scene: the backdrop as the camera sees it, shadows, objects and weather, frame by frame.

Legend: F frames, S side of the frame in pixels, W width of the backdrop.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.compose import zoom_at
from post_train.data.diorama.record import Scene, SceneObject
from post_train.data.diorama.scenery import PAN_ROOM, draw_backdrop, light_of
from post_train.data.diorama.sprites import ball_light, picture_of
from post_train.data.diorama.vocabulary import Camera, Sky, Weather

Frame = NDArray[np.uint8]

# More OpenCV threads only fight for the cores that the training process counts on.
cv2.setNumThreads(1)


def _view(backdrop: Frame, camera: Camera, t: float, side: int) -> Frame:
    """The backdrop through the camera at `t` in [0, 1] of the clip, uint8 [S, S, 3]."""
    room = (backdrop.shape[1] - side) / 2
    if camera is Camera.STATIC:
        start = round(room)
        return backdrop[:, start : start + side].copy()
    shift = 2 * PAN_ROOM * side * (t - 0.5)
    offset = room + (shift if camera is Camera.PAN_RIGHT else -shift if camera is Camera.PAN_LEFT else 0.0)
    zoom = float(zoom_at(camera, t))
    matrix = np.array([[zoom, 0, side / 2 * (1 - zoom) - zoom * offset], [0, zoom, side / 2 * (1 - zoom)]])
    return cv2.warpAffine(
        backdrop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)


def _box_around(x: float, y: float, half_w: float, half_h: float, side: int) -> tuple[int, int, int, int]:
    """Pixel bounds (x0, y0, x1, y1) of a box, cut to the frame; empty when x1 <= x0 or y1 <= y0."""
    return (
        max(0, int(x - half_w)),
        max(0, int(y - half_h)),
        min(side, int(x + half_w) + 1),
        min(side, int(y + half_h) + 1),
    )


def _cast_shadow(frame: Frame, x: float, y: float, width: float, height: float, strength: float) -> None:
    """Darkens an ellipse on the ground, in place; the softer its edge the farther from the middle."""
    x0, y0, x1, y1 = _box_around(x, y, width, height, frame.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    v = (np.arange(y0, y1, dtype=np.float32)[:, None] - y) / height
    u = (np.arange(x0, x1, dtype=np.float32)[None] - x) / width
    keep = 1 - strength * np.clip(1 - (u * u + v * v), 0, 1)
    frame[y0:y1, x0:x1] = (frame[y0:y1, x0:x1] * keep[..., None]).astype(np.uint8)


@lru_cache(maxsize=512)
def _ball_light_at(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    factor, shine = ball_light()
    shape = (size, size)
    return (
        cv2.resize(factor, shape, interpolation=cv2.INTER_AREA)[..., None].astype(np.float32),
        cv2.resize(shine, shape, interpolation=cv2.INTER_AREA)[..., None].astype(np.float32),
    )


def _picture_at(thing: SceneObject, size: float, angle: float) -> NDArray[np.uint8]:
    """The level of the object's pyramid just above `size` pixels; a ball is lit here, after it was turned."""
    pyramid = picture_of(thing.name, thing.colour)
    level = min(3, max(0, int(math.log2(max(96 / max(size, 1.0), 1.0)))))
    picture = pyramid[level]
    if thing.name != "ball":
        return picture
    side = picture.shape[0]
    if angle:
        turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -math.degrees(angle), 1.0)
        picture = cv2.warpAffine(picture, turn, (side, side), flags=cv2.INTER_LINEAR)
    factor, shine = _ball_light_at(side)
    alpha = picture[..., 3:].astype(np.float32)
    lit = np.minimum(picture[..., :3] * factor + shine * alpha / 255, alpha)
    return np.concatenate([lit, alpha], axis=-1).astype(np.uint8)


def _paste(frame: Frame, thing: SceneObject, x: float, y: float, size: float, angle: float, light: float) -> None:
    """Draws the object's picture centred at (x, y), `size` pixels wide, turned by `angle`, over `frame` in place."""
    picture = _picture_at(thing, size, angle)
    turn = 0.0 if thing.name == "ball" else angle
    side = picture.shape[0]
    reach = size * (0.5 if turn == 0 else 0.71) + 2
    x0, y0, x1, y1 = _box_around(x, y, reach, reach, frame.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    scale_x, scale_y = size / side * (-1 if thing.mirrored else 1), size / side
    cos, sin, middle = math.cos(turn), math.sin(turn), (side - 1) / 2
    matrix = np.array([[cos * scale_x, -sin * scale_y, 0.0], [sin * scale_x, cos * scale_y, 0.0]])
    matrix[:, 2] = (x - x0 - matrix[0, :2].sum() * middle, y - y0 - matrix[1, :2].sum() * middle)
    patch = cv2.warpAffine(picture, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR).astype(np.uint16)
    behind = frame[y0:y1, x0:x1]
    colour = (patch[..., :3] * round(light * 256)) >> 8
    frame[y0:y1, x0:x1] = np.minimum(255, colour + (behind * (255 - patch[..., 3:]) + 127) // 255)


@lru_cache(maxsize=1)
def _drops() -> NDArray[np.float32]:
    """Where flakes and drops start, [8, 3] fractions of width, height and speed: always the same, so learnable."""
    return np.random.default_rng(17).uniform(0, 1, (8, 3)).astype(np.float32)


@lru_cache(maxsize=8)
def _flake(side: int) -> NDArray[np.float32]:
    """How much of a soft round flake covers each pixel, [size, size, 1]: large enough to outlive a codec."""
    size = max(2, round(side / 16))
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / (size / 2)
    cover = 0.85 * np.clip(1.4 - (axis[:, None] ** 2 + axis[None] ** 2) * 1.4, 0, 1)
    return cover[..., None].astype(np.float32)


@lru_cache(maxsize=8)
def _streak(side: int) -> NDArray[np.float32]:
    """How much of a drop's streak covers each pixel, [length, width, 1]."""
    return np.full((max(3, round(side / 8)), max(1, round(side / 32)), 1), 0.6, np.float32)


def _fall(frame: Frame, weather: Weather, t: float) -> None:
    """Draws the weather at `t` of the clip, in place: flakes that drift, drops that streak."""
    side, drops = frame.shape[0], _drops()
    snow = weather is Weather.SNOW
    cover = _flake(side) if snow else _streak(side)
    speed, drift = (0.6, 0.15) if snow else (1.5, 0.2)
    x = ((drops[:, 0] + drift * t) % 1 * side).astype(int)
    y = ((drops[:, 1] + speed * t * (1 + (drops[:, 2] if snow else 0))) % 1 * side).astype(int)
    tint = np.array((252, 252, 255) if snow else (200, 215, 240), np.float32)
    for left, top in zip(x, y, strict=True):
        spot = frame[top : top + cover.shape[0], left : left + cover.shape[1]]
        part = cover[: spot.shape[0], : spot.shape[1]]
        spot[:] = ((1 - part) * spot + part * tint).astype(np.uint8)


def _draw_frame(scene: Scene, backdrop: Frame, index: int, num_frames: int, side: int) -> Frame:
    t = index / max(1, num_frames - 1)
    frame = _view(backdrop, scene.camera, t, side)
    light = 0.4 + 0.6 * light_of(scene.scenery.sky)
    shade = 0.22 if scene.scenery.sky is Sky.NIGHT else 0.45
    for thing in scene.objects:
        at = thing.track
        x, y, size, height = (float(v[index]) * side for v in (at.x, at.y, at.size, at.height))
        fade = max(0.15, 1 - 1.6 * height / side)
        _cast_shadow(
            frame, x, y + size / 2 + height, size * 0.42 * (0.6 + 0.4 * fade), max(1.5, size * 0.12), shade * fade
        )
        _paste(frame, thing, x, y, size, float(at.angle[index]), light)
    if scene.scenery.weather is not Weather.NONE:
        _fall(frame, scene.scenery.weather, t)
    return frame


def render(scene: Scene, side: int, num_frames: int) -> NDArray[np.uint8]:
    """The frames of `scene`, uint8 [F, S, S, 3]."""
    backdrop = draw_backdrop(scene.scenery, side)
    return np.stack([_draw_frame(scene, backdrop, i, num_frames, side) for i in range(num_frames)])
