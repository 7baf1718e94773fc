"""What counts as a hit, and as a recovery, by the events of the job that was hit."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from server.bench.chaos_blows import Blow, Effect, Kind, effect, percentiles, schedule
from server.bench.chaos_plan import ChaosPlan
from server.bench.chaos_view import TimedEvent

BLOW = Blow(kind=Kind.HOST, job_id="j", attempt=2, worker_id="w", at=100.0)


def history(*events: tuple[float, str, int]) -> list[TimedEvent]:
    """Events of a job whose second attempt began at 99 s."""
    early = [(98.0, "queued", 0), (98.1, "running", 1), (98.5, "retrying", 1), (99.0, "running", 2)]
    return [TimedEvent(at=at, type=kind, attempt=attempt) for at, kind, attempt in [*early, *events]]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], None),
        ([(100.4, "progress", 0)], None),
        ([(102.0, "retrying", 2)], None),
        ([(102.0, "retrying", 2), (102.5, "running", 3)], Effect(hit=True, recovery_s=2.5)),
        ([(102.0, "retrying", 2), (102.5, "cancelled", 2)], Effect(hit=True)),
        ([(100.1, "failed", 2)], Effect(hit=True)),
        ([(100.1, "cancelled", 2)], Effect(hit=True)),
        ([(100.1, "succeeded", 2)], Effect(hit=False)),
        ([(99.9, "cancelled", 2)], Effect(hit=False)),
        ([(99.9, "retrying", 2), (99.95, "running", 3)], Effect(hit=False)),
    ],
)
def test_what_comes_of_a_blow(events: list[tuple[float, str, int]], expected: Effect | None) -> None:
    """It hit if it ended the attempt; the job recovered when it was leased again; until then nothing is known."""
    assert effect(BLOW, history(*events)) == expected


def test_the_schedule_holds_what_was_asked() -> None:
    """Half of the kills take the host along, and kills of the queue's server are spread over the whole."""
    plan = ChaosPlan(jobs=100, kills=31, zombies=7, redis_kills=3)
    blows = list(schedule(plan, random.Random(1)))
    assert Counter(blows) == {Kind.CHILD: 16, Kind.HOST: 15, Kind.ZOMBIE: 7, Kind.REDIS: 3}
    places = [place for place, kind in enumerate(blows) if kind is Kind.REDIS]
    assert all(later - earlier > 8 for earlier, later in zip([0, *places], [*places, len(blows)], strict=True))


def test_percentiles() -> None:
    """By the nearest rank, which of few samples is the largest; of none there are none."""
    assert percentiles([0.3, 0.1, 0.2]) == {"p50": 0.2, "p99": 0.3, "max": 0.3, "n": 3}
    assert percentiles([]) == {"p50": None, "p99": None, "max": None, "n": 0}
