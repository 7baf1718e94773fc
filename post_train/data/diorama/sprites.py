"""Pictures of the objects as premultiplied RGBA pyramids: sprites from the sheet, balls and boxes shaded here.

Legend: N side of a picture in pixels; every picture is uint8 [N, N, 4], colour premultiplied by alpha.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.vocabulary import COLOURS, OBJECTS

Picture = NDArray[np.uint8]

SHEET = Path(__file__).parent / "sprites" / "sheet.webp"
CELL = 96
COLUMNS = 8
_LEVELS = (96, 48, 24, 12)


def sprite_names() -> list[str]:
    """The classes on the sheet, row by row."""
    return [o.name for o in OBJECTS.values() if not o.coloured]


def _pyramid(picture: NDArray[np.float32]) -> tuple[Picture, ...]:
    return tuple(
        np.clip(cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA), 0, 255).astype(np.uint8) for n in _LEVELS
    )


@lru_cache(maxsize=1)
def _sheet() -> NDArray[np.float32]:
    sheet = cv2.imread(str(SHEET), cv2.IMREAD_UNCHANGED)
    if sheet is None or sheet.shape[2] != 4:
        raise ValueError(
            f"the sprite sheet {SHEET.name} is missing or has no alpha channel; restore it from the repository"
        )
    rgba = cv2.cvtColor(sheet, cv2.COLOR_BGRA2RGBA).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba


def _ball(rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    """The unlit ball: its colour with one paler band, so that a turn is seen; light is laid over it after the turn."""
    y, x = (np.mgrid[0:CELL, 0:CELL].astype(np.float32) - (CELL - 1) / 2) / ((CELL - 1) / 2)
    radius = np.sqrt(x * x + y * y)
    band = np.clip((0.2 - np.abs(y + 0.15 * x * x)) * 12, 0, 1)[..., None]
    colour = np.array(rgb, np.float32)
    paint = colour * (1 - 0.45 * band) + 255 * 0.45 * band if min(rgb) < 200 else colour * (1 - 0.35 * band)
    alpha = np.clip((1 - radius) * (CELL - 1) / 2, 0, 1)[..., None]
    return np.concatenate([np.broadcast_to(paint, (CELL, CELL, 3)) * alpha, alpha * 255], axis=-1).astype(np.float32)


def _box(rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    """A cube seen from above the corner: three faces in three shades."""
    picture = np.zeros((CELL, CELL, 4), np.float32)
    colour = np.array(rgb, np.float32)
    faces = (
        (((8, 30), (56, 42), (56, 92), (8, 78)), 0.85),
        (((56, 42), (90, 26), (90, 72), (56, 92)), 0.55),
        (((8, 30), (44, 14), (90, 26), (56, 42)), 1.15),
    )
    for corners, shade in faces:
        paint = (*np.clip(colour * shade, 0, 255).tolist(), 255.0)
        cv2.fillPoly(picture, [np.array(corners, np.int32)], paint, cv2.LINE_AA)
    picture[..., :3] *= picture[..., 3:] / 255
    return picture


@lru_cache(maxsize=256)
def picture_of(name: str, colour: str | None) -> tuple[Picture, ...]:
    """The pyramid (96, 48, 24, 12 pixels) of a class, in `colour` if it has a choice."""
    if colour is not None:
        return _pyramid((_ball if name == "ball" else _box)(COLOURS[colour]))
    index = sprite_names().index(name)
    row, column = divmod(index, COLUMNS)
    return _pyramid(_sheet()[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL])


@lru_cache(maxsize=1)
def ball_light() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The light on a ball, which does not turn with it: (factor, added highlight), float32 [96, 96]."""
    y, x = (np.mgrid[0:CELL, 0:CELL].astype(np.float32) - (CELL - 1) / 2) / ((CELL - 1) / 2)
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    factor = 0.35 + 0.75 * np.clip(-0.45 * x - 0.65 * y + 0.6 * z, 0, 1) + 0.2 * (1 - z) ** 3
    shine = 255 * 0.6 * np.clip(-0.3 * x - 0.42 * y + 0.86 * z, 0, 1) ** 30
    return factor, shine
