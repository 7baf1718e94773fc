"""How long a child may be silent before it counts as hung."""

from __future__ import annotations

import statistics
from collections import deque

_REMEMBERED_STEPS = 32
_MEDIANS = 10


class StallClock:
    """Learns the pace of a batch's denoising steps; everything else, the first step included, is given `patience_s`."""

    def __init__(self, *, floor_s: float, patience_s: float) -> None:
        self._floor_s = floor_s
        self._patience_s = patience_s
        self._intervals: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._last: tuple[int, float] | None = None

    def stage(self) -> None:
        """A stage begins; what its parts take is not known."""
        self._last = None
        self._intervals.clear()

    def step(self, step: int, now: float) -> None:
        """A step is complete at `now`, in seconds of any steady clock.

        Jobs of a batch report each step one by one, and of quick steps some are not reported at all.
        """
        if self._last is not None and self._last[0] == step:
            return
        if self._last is not None and step > self._last[0]:
            self._intervals.append((now - self._last[1]) / (step - self._last[0]))
        self._last = (step, now)

    @property
    def limit_s(self) -> float:
        """The longest silence that is still no stall: ten median steps, and never less than the floor."""
        if not self._intervals:
            return self._patience_s
        return max(self._floor_s, _MEDIANS * statistics.median(self._intervals))
