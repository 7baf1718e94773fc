"""Packs the sprites that the vocabulary names out of the emoji pack's folder of WebP files into the one sheet.

Run once when the vocabulary gains an object: `python -m post_train.data.diorama.pack_sprites FOLDER`, where FOLDER is
`package/assets` of the npm package @lobehub/fluent-emoji-3d.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.sprites import CELL, COLUMNS, SHEET, sprite_names
from post_train.data.diorama.vocabulary import OBJECTS


def _cell(source: Path) -> NDArray[np.uint8]:
    """One emoji, cut to what is visible, centred at the bottom of a square, [CELL, CELL, 4] BGRA."""
    picture = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[2] != 4:
        raise ValueError(f"{source} is missing or has no alpha channel; unpack the emoji package there")
    rows, columns = np.where(picture[..., 3] > 8)
    cut = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float32)
    cut[..., :3] *= cut[..., 3:] / 255
    side = max(cut.shape[:2])
    square = np.zeros((side, side, 4), np.float32)
    left = (side - cut.shape[1]) // 2
    square[side - cut.shape[0] :, left : left + cut.shape[1]] = cut
    small = cv2.resize(square, (CELL, CELL), interpolation=cv2.INTER_AREA)
    small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-3)
    return np.clip(np.round(small), 0, 255).astype(np.uint8)


def pack(folder: Path) -> None:
    """Writes the sheet beside this module."""
    names = sprite_names()
    rows = -(-len(names) // COLUMNS)
    sheet = np.zeros((rows * CELL, COLUMNS * CELL, 4), np.uint8)
    for index, name in enumerate(names):
        row, column = divmod(index, COLUMNS)
        cell = _cell(folder / f"{OBJECTS[name].emoji}.webp")
        sheet[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = cell
    SHEET.parent.mkdir(exist_ok=True)
    done, code = cv2.imencode(".webp", sheet, [cv2.IMWRITE_WEBP_QUALITY, 92])
    assert done
    SHEET.write_bytes(code.tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m post_train.data.diorama.pack_sprites FOLDER")
    pack(Path(sys.argv[1]))
