"""What one arm's training costs for another's score: a ratio of forwards, and how far chance moves it.

Legend: L looks of a run, P validation prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RESAMPLES = 2000
_SEED = 20_260_428


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """A run's rows computed so far [L], from 0, and the gain of each prompt at each look [L, P], from 0."""

    forwards: Floats
    gains: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRatio:
    """The median cost ratio and its 95 % interval over those resamples in which both arms rose; `rose` is their share.

    NaN where they rose in none.
    """

    median: float
    low: float
    high: float
    rose: float


def cost_ratio(arm: Sequence[Rise], against: Sequence[Rise]) -> CostRatio:
    """The forwards to the best score that both arms reach, `arm`'s over `against`'s, by a bootstrap.

    A resample draws prompts, the same for both arms, and each arm's runs (seeds) with replacement; a curve is the mean
    over its runs, with straight lines between looks.
    """
    rng = np.random.default_rng(_SEED)
    prompts = arm[0].gains.shape[1]
    ratios = []
    for _ in range(_RESAMPLES):
        picked = rng.integers(prompts, size=prompts)
        one, two = (
            _mean_rise([runs[i] for i in rng.integers(len(runs), size=len(runs))], picked) for runs in (arm, against)
        )
        level = min(one[1].max(), two[1].max())
        if level > 0:
            ratios.append(_cost_of(level, *one) / _cost_of(level, *two))
    if not ratios:
        return CostRatio(median=np.nan, low=np.nan, high=np.nan, rose=0.0)
    low, median, high = np.percentile(ratios, [2.5, 50, 97.5]).tolist()
    return CostRatio(median=median, low=low, high=high, rose=len(ratios) / _RESAMPLES)


def _mean_rise(runs: Sequence[Rise], prompts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Forwards and mean gain at the looks of the run that was looked at most often, as far as all runs went."""
    most = max(runs, key=lambda run: len(run.forwards)).forwards
    forwards = np.unique(np.minimum(most, min(run.forwards[-1] for run in runs)))
    gains = [np.interp(forwards, run.forwards, run.gains[:, prompts].mean(axis=1)) for run in runs]
    return forwards, np.mean(gains, axis=0)


def _cost_of(level: float, forwards: Floats, gains: Floats) -> float:
    """Where the line through the looks first rises to `level`, which it reaches."""
    at = int(np.argmax(gains >= level))
    return float(np.interp(level, gains[at - 1 : at + 1], forwards[at - 1 : at + 1]))
