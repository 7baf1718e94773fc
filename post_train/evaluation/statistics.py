"""Means with bootstrap intervals over prompts, and how many prompts an effect needs.

Legend: P prompts, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8
_SEED = 20_260_428
_CHUNK = 1_000_000  # picks held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with the ends of its 95 % interval; both ends are NaN where one prompt tells of no spread."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def bootstrap_means(values_P: Floats, *, resamples: int = RESAMPLES, seed: int = _SEED) -> Floats:
    """Means [R] of `values_P` over as many prompts, drawn from them with replacement."""
    prompts = len(values_P)
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // prompts)
    means = []
    for start in range(0, resamples, at_once):
        picks_RP = rng.integers(prompts, size=(min(at_once, resamples - start), prompts), dtype=np.uint32)
        means.append(values_P[picks_RP].mean(axis=1))
    return np.concatenate(means)


def interval(values_P: Floats) -> Interval:
    """The mean of one value a prompt, with its percentile bootstrap interval. ValueError when there is no value."""
    if len(values_P) == 0:
        raise ValueError("a mean of no prompts was asked for")
    mean = float(np.mean(values_P))
    if len(values_P) == 1:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(bootstrap_means(values_P), [tail, 100 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


def share_interval(hits: int, count: int) -> Interval:
    """The share of `hits` among `count` independent cases, with Wilson's 95 % interval. ValueError for no case."""
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"a share needs 0 to n hits in n cases, got {hits} in {count}")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, weight = hits / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return Interval(mean=share, low=middle - reach, high=middle + reach)


def needed_prompts(spread: float, effect: float) -> int:
    """Prompts that find a true mean difference of `effect` in 80 % of experiments, by a 95 % interval off zero.

    n = ((z_0.975 + z_0.8) * spread / effect)^2, with `spread` the standard deviation of the difference over prompts.
    """
    if effect <= 0:
        raise ValueError(f"an effect must be above 0, got {effect}")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) + NormalDist().inv_cdf(POWER)
    return max(2, math.ceil((z * spread / effect) ** 2))
