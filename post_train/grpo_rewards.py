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
    """A reward's name or address, and the weight behind its last `=`; 1 where there is none, or where it asks."""
    name, sign, number = word.rpartition("=")
    if not sign or "?" in name:
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


def check_apart(panel: Panel, validating: Sequence[Reward]) -> None:
    """ValueError where a reward chooses by what it taught, or the held-out judge does either, whatever it is called."""
    learnt = {seat.reward.digest: seat.reward.name for seat in panel.seats}
    for reward in validating:
        if reward.digest in learnt:
            raise ValueError(f"{reward.name} rewards and validates; what is learnt by must not choose, name another")
    dimensions = [reward.dimension for reward in validating]
    twice = next((d for d in dimensions if dimensions.count(d) > 1), None)
    if twice is not None:
        raise ValueError(f"two rewards validate {twice.value}; name one a dimension")
    everyone = [*(seat.reward for seat in panel.seats), *validating]
    far = [reward for reward in everyone if isinstance(reward, RemoteReward)]
    kept_out = {reward.digest for reward in load_judges("held_out").rewards} if far else set()
    for reward in far:
        if reward.digest in kept_out:
            raise ValueError(f"{reward.name} is the held-out judge, by which nothing is learnt or chosen; name another")


def _remote(address: str) -> Reward:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"reward {address!r} is neither ta, mq, vq, novelty nor an http address of a scorer")
    return RemoteReward(address)
