"""What is said of many measured numbers: percentiles by the nearest rank, and a slope."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latencies_ms(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """p50, p95, p99 and the largest, in milliseconds, and how many there were."""
    told: dict[str, float | int | None] = {
        name: _ms(percentile(seconds, share)) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return told | {"max": _ms(max(seconds, default=None)), "n": len(seconds)}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of y over x; 0 when there are fewer than two different x."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / max(1, n), sum(y for _, y in points) / max(1, n)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)
