"""Side-by-side contact sheets of a comparison: the first prompts as they come, and where each side won most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from post_train.contact_sheet import write_sheet
from post_train.evaluation.comparison import Comparison, film_of, pairs
from post_train.evaluation.films import Ask

_ROWS = 12
_LABEL_CHARS = 150


def write_sheets(folder: Path, comparison: Comparison) -> list[str]:
    """Writes the sheets below `folder`, A left and B right in every row; returns their paths relative to it."""
    asks = [ask for _, ask in pairs(comparison, comparison.prompts.headline)]
    ahead = sorted(asks, key=lambda ask: _lead(comparison, ask), reverse=True)
    chosen = {
        "first": asks[:_ROWS],
        "a_best": [ask for ask in ahead[:_ROWS] if _lead(comparison, ask) > 0],
        "b_best": [ask for ask in ahead[::-1][:_ROWS] if _lead(comparison, ask) < 0],
    }
    paths = []
    for name, picked in chosen.items():
        if picked:
            _write(folder / "sheets" / f"{name}.png", comparison, picked)
            paths.append(f"sheets/{name}.png")
    return paths


def _lead(comparison: Comparison, ask: Ask) -> float:
    return comparison.scale.total(comparison.a.found[ask]) - comparison.scale.total(comparison.b.found[ask])


def _write(path: Path, comparison: Comparison, asks: Sequence[Ask]) -> None:
    films = []
    for ask in asks:
        for letter, side in (("A", comparison.a), ("B", comparison.b)):
            total = comparison.scale.total(side.found[ask])
            label = f"{letter} {side.arm.name} {total:+.2f}: {ask.prompt}"[:_LABEL_CHARS]
            films.append((label, film_of(side, ask).frames))
    write_sheet(path, films, across=2)
