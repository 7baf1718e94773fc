"""The queue as Python sees it: each method is one atomic function of `functions.lua`, or a plain read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ResponseError

from server.queue.event_stream import follow
from server.queue.records import job_record
from server.queue.types import (
    TERMINAL,
    Accepted,
    Cancellation,
    IdempotencyConflict,
    JobEvent,
    JobRecord,
    Lease,
    NewJob,
    Outcome,
    Progress,
    QueueDepth,
    QueueFull,
    ReleaseReason,
    Renewal,
    WorkerNotice,
    WorkerState,
)

LIBRARY_PATH = Path(__file__).with_name("functions.lua")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class JobQueue:
    """The jobs of one pool (all workers of a pool serve the same model).

    Execution at least once, outcome accepted exactly once. Every method may raise `redis.exceptions.ConnectionError`
    or `redis.exceptions.TimeoutError`; all but `lease` may then be repeated without harm (a repeated `lease` is
    harmless as well, but the first one's jobs wait until their leases end).
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        pool: str = "default",
        max_queued_jobs: int = 1000,
        max_queued_seconds: float = 3600.0,
        lease_s: float = 6.0,
        max_attempts: int = 3,
        retention_s: float = 86400.0,
        idempotency_s: float = 86400.0,
        batch_budget_s: float = 60.0,
        max_events: int = 512,
    ) -> None:
        """`max_queued_*` bound admission; `retention_s` is how long finished jobs can be read, `idempotency_s` how long
        a key is remembered; `batch_budget_s` is how far ahead of its fair turn a job may be taken along in a batch."""

    async def install(self) -> None:
        """Load the function library, or replace it, unless the server has this very text."""

    async def enqueue(self, job: NewJob) -> Accepted | QueueFull | IdempotencyConflict:
        """Admit a job, replay the answer of an equal one, or say why not. ValueError for malformed names."""

    async def lease(self, worker_id: str, *, max_batch: int = 1) -> list[Lease]:
        """The fair next job with up to max_batch - 1 queued mates of its shape; empty when nothing waits."""

    async def renew(self, job_id: str, attempt: int, progress: Progress | None = None) -> Renewal:
        """Keep the lease; new progress becomes an event. LOST when the attempt no longer holds the job."""

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """End the job; False when the attempt is stale and the outcome was refused."""

    async def release(self, job_id: str, attempt: int, reason: ReleaseReason, *, worker_id: str) -> bool:
        """Give the job back to its old place, or end it when its attempts are spent; False when stale."""

    async def cancel(self, job_id: str) -> Cancellation:
        """Cancel a queued job now, a running one at its worker's next renewal."""

    async def reap(self) -> list[str]:
        """Take back jobs whose leases have ended; their ids. `lease` does this too."""

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, or None when there is none (any more)."""

    async def position(self, job_id: str) -> int | None:
        """Queued jobs that the scheduler will take before this one, as far as can be told; None unless queued."""

    async def seconds_ahead(self, job_id: str) -> float | None:
        """Predicted engine seconds of running and queued work before this job; None unless queued.

        It is work, not time: divide by the number of ready workers.
        """

    async def depth(self) -> QueueDepth:
        """What waits and what runs."""

    def events(self, job_id: str, *, after: str = "0-0") -> AsyncIterator[JobEvent]:
        """The job's events after the id `after`, live until its terminal event; at once over for an unknown job.

        ValueError when `after` is not a stream id.
        """

    async def wait_for_arrival(self, after: str) -> str:
        """Wait a moment for something to lease; the id to pass next time (`after` itself when nothing came)."""

    async def announce_worker(self, notice: WorkerNotice) -> None:
        """Tell readers that this worker lives; forgotten after a few seconds unless repeated."""

    async def workers(self) -> list[WorkerNotice]:
        """The workers that announced themselves lately."""

    async def set_weight(self, tenant: str, weight: float) -> None:
        """Give a tenant `weight` shares of the engines; everybody begins with 1."""
