"""What the run reads of the queue beyond `JobQueue`: who holds a lease, how far a job is, what has happened to it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis

from server.bench.chaos_site import POOL

_PREFIX = "{q:" + POOL + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker with a lease: `attempt` of `job_id`."""

    job_id: str
    attempt: int
    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedEvent:
    """One entry of a job's stream; `at` is in Unix seconds, `attempt` is 0 where the event names none."""

    at: float
    type: str
    attempt: int


async def states_of(client: redis.Redis, job_ids: Collection[str]) -> dict[str, str | None]:
    """The state of each job."""
    async with client.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hget(f"{_PREFIX}:job:{job_id}", "state")
        return dict(zip(job_ids, await pipeline.execute(), strict=True))


async def holders(client: redis.Redis) -> list[Holder]:
    """Who holds a lease just now."""
    leased: Any = await client.zrange(f"{_PREFIX}:leases", 0, -1)
    async with client.pipeline(transaction=False) as pipeline:
        for job_id in leased:
            pipeline.hmget(f"{_PREFIX}:job:{job_id}", ["attempt", "worker", "state"])
        answers = await pipeline.execute()
    return [
        Holder(job_id=job_id, attempt=int(attempt), worker_id=worker)
        for job_id, (attempt, worker, state) in zip(leased, answers, strict=True)
        if state == "running"
    ]


async def events_of(client: redis.Redis, job_id: str) -> list[TimedEvent]:
    """All that has happened to a job."""
    entries: Any = await client.xrange(f"{_PREFIX}:events:{job_id}")
    return [
        TimedEvent(
            at=int(entry_id.partition("-")[0]) / 1000,
            type=fields["type"],
            attempt=json.loads(fields["data"]).get("attempt", 0),
        )
        for entry_id, fields in entries
    ]
