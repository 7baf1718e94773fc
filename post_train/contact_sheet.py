"""Contact sheets: films as rows of frames under their prompts, enlarged so that a person can judge them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engines.whole_writes import write_whole

_LABEL = 16


def contact_sheet(
    films: Sequence[tuple[str, NDArray[np.uint8]]], *, columns: int = 9, cell: int = 112, across: int = 1
) -> Image.Image:
    """A row of `columns` evenly spaced frames a film, `cell` pixels high by Lanczos, `across` films beside each other.

    `films` are (prompt, frames uint8 [F, H, W, 3]).
    """
    _, height, width, _ = films[0][1].shape
    size = (round(cell * width / height), cell)
    rows = -(-len(films) // across)
    block = size[0] * columns + 8
    sheet = Image.new("RGB", (block * across, rows * (cell + _LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (prompt, frames) in enumerate(films):
        left, top = index % across * block, index // across * (cell + _LABEL)
        draw.text((left + 2, top + 2), prompt, fill="black")
        picks = np.linspace(0, len(frames) - 1, columns).round().astype(int)
        for column, pick in enumerate(picks):
            picture = Image.fromarray(frames[pick]).resize(size, Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + column * size[0], top + _LABEL))
    return sheet


def write_sheet(path: Path, films: Sequence[tuple[str, NDArray[np.uint8]]], *, across: int = 1) -> None:
    """Writes the contact sheet of `films` as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    contact_sheet(films, across=across).save(buffer, format="PNG", optimize=True)
    write_whole(path, buffer.getvalue())
