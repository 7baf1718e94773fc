"""Jobs for the queue's tests, and a way to let a lease end without waiting for it."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis

from server.queue.types import NewJob, Outcome, State

PREFIX = "{q:test}"
SUCCESS = Outcome(state=State.SUCCEEDED, artifact="j/1.mp4", facts={"seed": 1})


def new_job(job_id: str, **changes: Any) -> NewJob:
    """A job of tenant `t` that is predicted to take one second."""
    fields: dict[str, Any] = {
        "job_id": job_id,
        "tenant": "t",
        "priority": 0,
        "shape_key": "64x64x17-8",
        "cost": 1.0,
        "request": {"generation": {"prompt": "a red ball"}, "format": "mp4"},
    }
    return NewJob(**(fields | changes))


async def end_lease(client: redis.Redis, job_id: str) -> None:
    """Move a lease's deadline into the past, as silence does; nothing happens to a job without a lease."""
    await client.zadd(f"{PREFIX}:leases", {job_id: 1}, xx=True)
