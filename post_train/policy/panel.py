"""Several rewards asked at once, while the next films are being made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.rewards.base import Film, Reward, Score, scored
from post_train.rewards.remote import RemoteReward

NOVELTY = "novelty"
Read = Callable[[Score], float]


def smooth_value(score: Score) -> float:
    """What a reward is learnt by: the expected value where it tells one beside its verdict, else the verdict."""
    return score.parts.get("expected", score.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One reward of a panel and what it counts."""

    reward: Reward
    weight: float


class Panel:
    """Rewards in a fixed order, local ones and those behind HTTP alike, each asked by a thread of its own.

    Scores come back in the order in which films were handed in. A reward that fails stops the run when its scores are
    fetched, by RewardError with its name and the film's. `novelty` is the weight of how far a film lies from the others
    of its group, which is no judge's to tell; see `post_train.evaluation.diversity`.
    """

    def __init__(self, seats: Sequence[Seat], *, novelty: float = 0.0) -> None:
        if not seats:
            raise ValueError("a panel needs at least one reward; name a judge or a scorer's address")
        self.seats, self.novelty = tuple(seats), novelty
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"reward-{i}") for i in range(len(seats))]
        self._asked: list[list[Future[list[Score]]]] = []

    @property
    def weights(self) -> NDArray[np.float32]:
        """What each reward counts, [K]; novelty, where it counts, last."""
        told = [seat.weight for seat in self.seats] + [self.novelty] * (self.novelty > 0)
        return np.array(told, dtype=np.float32)

    @property
    def digests(self) -> list[str]:
        """The rewards by name and hash, for the manifest."""
        told = [f"{seat.reward.name} {seat.reward.digest} x {seat.weight:g}" for seat in self.seats]
        return told + [f"{NOVELTY} x {self.novelty:g}"] * (self.novelty > 0)

    @property
    def columns(self) -> list[str]:
        """What the log calls each reward: by its dimension, and by its place where there are several of it."""
        seen = [f"reward_{seat.reward.dimension.value}" for seat in self.seats]
        return [name if seen.count(name) == 1 else f"{name}_{at}" for at, name in enumerate(seen)]

    def submit(self, films: Sequence[Film]) -> None:
        """Hands films in; returns at once."""
        some = list(films)
        self._asked.append(
            [thread.submit(scored, seat.reward, some) for thread, seat in zip(self._threads, self.seats, strict=True)]
        )

    def collect(self) -> list[list[Score]]:
        """The scores of all films handed in since the last time: a list of every reward's scores for each film."""
        asked, self._asked = self._asked, []
        found: list[list[Score]] = []
        for futures in asked:
            columns = [future.result() for future in futures]
            found += [list(row) for row in zip(*columns, strict=True)]
        return found

    def close(self) -> None:
        """Waits for what is being scored, and lets threads and connections go."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)
        let_go(seat.reward for seat in self.seats)


def let_go(rewards: Iterable[Reward]) -> None:
    """Closes the connections of rewards that have one."""
    for reward in rewards:
        if isinstance(reward, RemoteReward):
            reward.close()


def matrix(scores: Sequence[Sequence[Score]]) -> NDArray[np.float32]:
    """Rewards [films, K] in fp32, as they are learnt by."""
    return np.array([[smooth_value(score) for score in row] for row in scores], dtype=np.float32)
