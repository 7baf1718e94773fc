"""What is done to workers, whether it hit a lease, and how long a job that was hit waited for its next lease."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.bench.chaos_plan import ChaosPlan
from server.bench.chaos_view import TimedEvent
from server.bench.figures import percentile


class Kind(StrEnum):
    """What goes wrong."""

    CHILD = "child"
    HOST = "host"
    ZOMBIE = "zombie"
    REDIS = "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Something done at `at` (Unix seconds) to the worker that held a lease on (job_id, attempt)."""

    kind: Kind
    job_id: str
    attempt: int
    worker_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What came of a blow: whether it cost the attempt, and the seconds until the job was leased again, if it was."""

    hit: bool
    recovery_s: float | None = None


def effect(blow: Blow, events: Sequence[TimedEvent]) -> Effect | None:
    """What came of the blow by its job's events; None while that is not known yet.

    It hit when the attempt ended after it, and not by delivering its film all the same.
    """
    ending = next((event for event in events if event.type in _ENDINGS and event.attempt == blow.attempt), None)
    if ending is None:
        return None
    # Streams count in whole milliseconds.
    if ending.type == "succeeded" or ending.at < math.floor(blow.at * 1000) / 1000:
        return Effect(hit=False)
    if ending.type != "retrying":
        return Effect(hit=True)
    again = next((event for event in events if event.type == "running" and event.attempt > blow.attempt), None)
    if again is not None:
        return Effect(hit=True, recovery_s=max(0.0, again.at - blow.at))
    # Cancelled while it waited.
    return Effect(hit=True) if events[-1].type == "cancelled" else None


_ENDINGS = frozenset({"retrying", "succeeded", "failed", "cancelled"})


def schedule(plan: ChaosPlan, rng: random.Random) -> deque[Kind]:
    """All blows in order: half of the kills take the host along, those of the queue server are spread evenly."""
    kinds = [Kind.CHILD] * (plan.kills - plan.kills // 2) + [Kind.HOST] * (plan.kills // 2)
    kinds += [Kind.ZOMBIE] * plan.zombies
    rng.shuffle(kinds)
    share = len(kinds) / (plan.redis_kills + 1)
    for number in range(plan.redis_kills, 0, -1):
        kinds.insert(round(share * number), Kind.REDIS)
    return deque(kinds)


def percentiles(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """p50, p99 and the largest, in seconds, with their number; None where there are none."""
    told = {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "max": max(seconds, default=None)}
    return {name: value and round(value, 3) for name, value in told.items()} | {"n": len(seconds)}
