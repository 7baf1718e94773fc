"""What each learnt step counts; over all that one update learns from, the weights average to one.

Legend: S learnt steps of an update, over all ranks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from post_train.distributed import Ranks


class Weighting(StrEnum):
    """`rectified`: temporal gradient rectification (arXiv 2605.15980); `equalised`: by measured gradients (SAGE)."""

    EQUAL = "equal"
    RECTIFIED = "rectified"
    EQUALISED = "equalised"


def rectified(pulls_to_noise: Sequence[float]) -> list[float]:
    """[S], each as deviation / |pull| of its step: every step's gradient pushes as hard as any other's."""
    return averaging_one([1 / p for p in pulls_to_noise])


def equalised(steps: Sequence[int], norms: Mapping[int, float]) -> list[float]:
    """[S], each as median(g) / g of its step, with g the gradient norms seen so far; a step not yet seen counts 1."""
    middle = statistics.median(norms.values()) if norms else 1.0
    return averaging_one([middle / norms[s] if norms.get(s, 0) > 0 else 1.0 for s in steps])


def averaging_one(weights: Sequence[float]) -> list[float]:
    """The weights divided by their mean. ValueError where that cannot be: none, or one that is not above 0."""
    if not weights or min(weights) <= 0:
        raise ValueError(f"weights of an update must be there and above 0, got {list(weights)[:8]}")
    mean = sum(weights) / len(weights)
    found = [w / mean for w in weights]
    assert abs(sum(found) / len(found) - 1) < 1e-9
    return found


class Slopes:
    """The gradient norms of one update's items, by their steps."""

    def __init__(self) -> None:
        self._seen: dict[int, list[float]] = {}

    def take(self, step: int, norms: Sequence[float]) -> None:
        """Counts the norms of some items of a step in."""
        self._seen.setdefault(step, []).extend(norms)

    def means(self, ranks: Ranks, steps: int) -> dict[int, float]:
        """The mean norm of each step of a schedule of `steps` that any rank has seen, the same on all."""
        rows = [[sum(self._seen.get(s, [])), float(len(self._seen.get(s, [])))] for s in range(steps)]
        flat = ranks.mean([value for row in rows for value in row])
        return {s: flat[2 * s] / flat[2 * s + 1] for s in range(steps) if flat[2 * s + 1] > 0}


@dataclass(slots=True)
class StepNorms:
    """A moving average of the gradient norm that each step of the schedule was seen with."""

    decay: float = 0.9
    seen: dict[int, float] | None = None

    def take(self, step: int, norm: float) -> None:
        """Counts one measured norm in."""
        self.seen = self.seen or {}
        before = self.seen.get(step)
        self.seen[step] = norm if before is None else self.decay * before + (1 - self.decay) * norm
