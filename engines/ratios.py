"""Times of two sides that took turns, as one ratio with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def ratio_quartiles(own: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How many times as long `other` takes, turn by turn: `ratio` is the median, the quartiles are beside it.

    Both are times of the same turns, two or more. ValueError for other lengths.
    """
    ratios = [theirs / ours for ours, theirs in zip(own, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "ratio_low": low, "ratio_high": high}
