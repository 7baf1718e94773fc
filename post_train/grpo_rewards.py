"""Who rewards a policy and who validates it, from the words of a command line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from post_train.evaluation.judging import load_judges
from post_train.policy.panel import NOVELTY, Panel, Seat
from post_train.rewards.base import Reward
from post_train.rewards.remote import RemoteReward

OURS = ("ta", "mq", "vq")


def weighted(word: str) -> tuple[str, float]:
    """A reward's name or address, and the weight behind its last `=`; 1 where there is none."""
    name, sign, number = word.rpartition("=")
    if not sign:
        return word, 1.0
    try:
        weight = float(number)
    except ValueError:
        return word, 1.0  # an address may have a query
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight of reward {name!r} is {number}; it must be above 0")
    return name, weight


def panel_of(words: Sequence[str]) -> Panel:
    """The rewards that are learnt by. ValueError for the held-out judge, by which nothing is learnt."""
    counted = [weighted(word) for word in words]
    named = [(name, weight) for name, weight in counted if name != NOVELTY]
    judges = load_judges("reward").rewards if any(name in OURS for name, _ in named) else ()
    known: dict[str, Reward] = {reward.dimension.value: reward for reward in judges}
    seats = [Seat(reward=known.get(name) or _remote(name), weight=weight) for name, weight in named]
    return Panel(seats, novelty=sum(weight for name, weight in counted if name == NOVELTY))


def validating_rewards(words: Sequence[str]) -> list[Reward]:
    """The rewards that choose. ValueError for those that choose nothing or are learnt by."""
    if list(words) == ["validation"]:
        return list(load_judges("validation").rewards)
    if {"held-out", "held_out", "reward"} & set(words):
        raise ValueError(
            "the held-out judge chooses nothing, and the one that rewards must not choose; use validation or an address"
        )
    return [_remote(word) for word in words]


def _remote(address: str) -> Reward:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"reward {address!r} is neither ta, mq, vq, novelty nor an http address of a scorer")
    return RemoteReward(address)
