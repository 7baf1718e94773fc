"""What a chaos run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass


class BenchError(ValueError):
    """The bench cannot be run, or did not run as it must; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """How much is done and how much goes wrong.

    `cancels` is the share of the jobs that their clients cancel at some moment; `lease_s` is in seconds; `real_kills`
    are the kills of a child that makes films with the built-in model, `drains` the workers ended by SIGTERM in a run of
    their own.
    """

    jobs: int
    kills: int
    zombies: int
    redis_kills: int
    cancels: float = 0.1
    workers: int = 5
    seed: int = 0
    lease_s: float = 2.0
    real_kills: int = 0
    drains: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("jobs", 1),
            ("kills", 0),
            ("zombies", 0),
            ("redis_kills", 0),
            ("real_kills", 0),
            ("drains", 0),
        ):
            if getattr(self, name) < least:
                raise BenchError(f"{_option(name)} is {getattr(self, name)}; use {least} or more")
        if not 1 <= self.workers <= 64:
            raise BenchError(f"--workers is {self.workers}; use 1 to 64")
        if not 0 <= self.cancels <= 0.5:
            raise BenchError(f"--cancels is {self.cancels:g}; use a share of the jobs from 0 to 0.5")
        if not 1 <= self.lease_s <= 60:
            raise BenchError(f"--lease is {self.lease_s:g} seconds; use 1 to 60")
        # Each takes a running job, and a job that is hit twice may be spent.
        if self.kills + self.zombies > self.jobs:
            raise BenchError(
                f"{self.kills} kills and {self.zombies} zombies need as many jobs to hit; --jobs is {self.jobs}, "
                f"use {self.kills + self.zombies} or more"
            )

    def control(self) -> ChaosPlan:
        """The smaller run in which the fence is missing."""
        jobs = min(60, max(10, self.jobs // 10))
        blows = math.ceil(jobs / 10)
        return ChaosPlan(
            jobs=jobs,
            kills=blows,
            zombies=blows,
            redis_kills=0,
            cancels=self.cancels,
            workers=self.workers,
            seed=self.seed + 1,
            lease_s=self.lease_s,
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
