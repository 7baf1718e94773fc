"""Good, Same, Bad: outcomes of pairs out of a judge's scores or a person's choices, and GSB with its interval.

GSB = (G - B) / (G + S + B) in [-1, 1]; from a judge it is called auto-GSB, and says nothing of what people would say.
Legend: P prompts, K seeds of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.evaluation.statistics import CONFIDENCE, Floats, interval

Outcomes = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsb:
    """How often A was good, the same or bad against B, over `prompts` prompts; positive means that A wins."""

    gsb: float
    low: float
    high: float
    good: int
    same: int
    bad: int
    prompts: int


def tie_threshold(noise_a_PK: Floats, noise_b_PK: Floats) -> float:
    """The judge's own standard error on a difference, root mean square over pairs: what is below it is a tie."""
    return float(np.sqrt(np.mean(noise_a_PK**2 + noise_b_PK**2)))


def outcomes(difference_PK: Floats, threshold: float) -> Outcomes:
    """1 where A is better by more than `threshold`, -1 where B is, 0 between."""
    return (np.sign(difference_PK) * (np.abs(difference_PK) > threshold)).astype(np.int8)


def gsb_of(outcomes_PK: Outcomes) -> Gsb:
    """GSB with its bootstrap interval over prompts; seeds of one prompt stay together. ValueError when there is none.

    Where all outcomes are the same a resample can show nothing else, so the interval is then that of a share seen in
    n of n cases (Clopper-Pearson).
    """
    if outcomes_PK.size == 0:
        raise ValueError("GSB needs at least one pair")
    per_prompt = outcomes_PK.mean(axis=1, dtype=np.float64)
    value = float(per_prompt.mean())
    if len(np.unique(outcomes_PK)) == 1:
        low, high = _unanimous(int(outcomes_PK.flat[0]), len(per_prompt))
    elif len(per_prompt) == 1:
        low, high = -1.0, 1.0
    else:
        found = interval(per_prompt)
        low, high = found.low, found.high
    good, bad = int((outcomes_PK > 0).sum()), int((outcomes_PK < 0).sum())
    same = outcomes_PK.size - good - bad
    return Gsb(gsb=value, low=low, high=high, good=good, same=same, bad=bad, prompts=len(per_prompt))


def _unanimous(outcome: int, prompts: int) -> tuple[float, float]:
    """The interval when `prompts` of `prompts` had one outcome: what else may be among them is at its worst."""
    share = ((1 - CONFIDENCE) / 2) ** (1 / prompts)
    match outcome:
        case 1:
            return 2 * share - 1, 1.0
        case -1:
            return -1.0, 1 - 2 * share
        case _:
            return share - 1, 1 - share
