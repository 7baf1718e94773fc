"""From rewards to advantages, group by group, in float64.

Legend: P prompts of an update, G films of each (a group), K rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped
from numpy.typing import NDArray

_ALIKE = 1e-6
"""A group whose rewards deviate by less, or by less a unit of their size, says nothing: that is rounding in fp32."""


class Mixing(StrEnum):
    """How several rewards become one: `sum` adds them up first; `each` gives each advantages of its own and adds those.

    With `each` a reward's unit does not matter.
    """

    SUM = "sum"
    EACH = "each"


class Deviation(StrEnum):
    """What advantages are divided by: the deviation in their `group`, or over the whole `batch` (Flash-GRPO)."""

    GROUP = "group"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageRule:
    """`clip` bounds advantages both ways; `extremes` keeps of each group only so many of its best and of its worst."""

    mixing: Mixing = Mixing.EACH
    deviation: Deviation = Deviation.GROUP
    clip: float = 5.0
    extremes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """`values` [P, G], and which films are learnt from [P, G]; `dropped` groups had rewards that were all alike."""

    values: NDArray[np.float64]
    kept: NDArray[np.bool_]
    dropped: int


@jaxtyped(typechecker=beartype)
def advantages(
    rewards: Float[np.ndarray, "P G K"], weights: Float[np.ndarray, " K"], rule: AdvantageRule
) -> Advantages:
    """Each film's reward against its group's mean, in deviations. ValueError for a group of one, or not-a-number."""
    if rewards.shape[1] < 2:
        raise ValueError(f"a group has {rewards.shape[1]} films; an advantage needs at least 2 to compare")
    if not np.isfinite(rewards).all():
        raise ValueError("a reward is not finite; a run must stop before it comes here")
    wide = rewards.astype(np.float64)
    total = wide @ weights
    alike = total.std(axis=1) < _rounding(total)
    if rule.mixing is Mixing.SUM:
        values = _normalised(total, rule.deviation)
    else:
        each = [_normalised(wide[:, :, k], rule.deviation) for k in range(wide.shape[2])]
        values = np.stack(each, axis=-1) @ weights
        alike &= (wide.std(axis=1) < _rounding(wide)).all(axis=1)
    values = np.clip(values, -rule.clip, rule.clip)
    kept = np.repeat(~alike[:, None], rewards.shape[1], axis=1) & _extreme(values, rule.extremes)
    return Advantages(values=np.where(alike[:, None], 0.0, values), kept=kept, dropped=int(alike.sum()))


def _normalised(values_PG: NDArray[np.float64], over: Deviation) -> NDArray[np.float64]:
    centred = values_PG - values_PG.mean(axis=1, keepdims=True)
    own, least = values_PG.std(axis=1, keepdims=True), _rounding(values_PG)[:, None]
    spread = own if over is Deviation.GROUP else np.array([[values_PG.std()]])
    return np.where(own < least, 0.0, centred / np.maximum(spread, least))


def _rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The deviation within groups (axis 1) up to which values are alike."""
    return _ALIKE * np.maximum(1.0, np.abs(values).max(axis=1))


def _extreme(values_PG: NDArray[np.float64], count: int | None) -> Bool[np.ndarray, "P G"]:
    if count is None:
        return np.ones(values_PG.shape, dtype=bool)
    ranks = values_PG.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (ranks < count) | (ranks >= values_PG.shape[1] - count)
