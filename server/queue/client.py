"""The queue as Python sees it: each method is one atomic function of `functions.lua`, or a plain read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ResponseError

from server.queue.event_stream import follow, jobs_after, newest_after, require_stream_id
from server.queue.library import install_library
from server.queue.records import job_record, require_name, worker_notice
from server.queue.types import (
    TERMINAL,
    Accepted,
    Ahead,
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
    TenantQuotaReached,
    WorkerNotice,
)

WORKER_TTL_MS = 6000


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
        idempotency_s: float | None = None,
        batch_budget_s: float = 60.0,
        ageing_s: float = 300.0,
        max_events: int = 512,
    ) -> None:
        """`max_queued_*` bound admission. `retention_s` is how long a finished job can be read, `idempotency_s` how
        long a key is remembered (by default the same). `batch_budget_s` is how far ahead of its fair turn a job may be
        taken along in a batch, `ageing_s` how much longer than another a job has to have waited to make up for one step
        of priority. All processes of a pool should agree on these."""
        idempotency_s = retention_s if idempotency_s is None else idempotency_s
        if idempotency_s > retention_s:
            raise ValueError(f"idempotency_s {idempotency_s} exceeds retention_s {retention_s}: a key outlives its job")
        self._redis = client
        self._prefix = "{q:" + require_name(pool, "pool") + "}"
        self._admission = {
            "max_jobs": max_queued_jobs,
            "max_cost_ms": round(max_queued_seconds * 1000),
            "idempotency_ms": round(idempotency_s * 1000),
            "ageing_ms": round(ageing_s * 1000),
        }
        self._batch_budget_ms = round(batch_budget_s * 1000)
        self._keeping = {
            "lease_ms": round(lease_s * 1000),
            "max_events": max_events,
            "max_attempts": max_attempts,
            "retention_ms": round(retention_s * 1000),
        }

    @property
    def prefix(self) -> str:
        """What all keys of the pool begin with."""
        return self._prefix

    async def install(self) -> None:
        """Load the function library, or replace it, unless the server has this very text.

        LibraryMissingError when it is not there and this Redis user may not load it.
        """
        await install_library(self._redis)

    async def enqueue(self, job: NewJob) -> Accepted | QueueFull | TenantQuotaReached | IdempotencyConflict:
        """Admit a job, replay the answer of an equal one, or say why not. ValueError for malformed names."""
        kind, value = await self._call("enqueue", **_admission_fields(job), **self._admission)
        if kind == "full":
            return QueueFull(retry_after=max(1.0, value / 1000))
        if kind == "tenant_full":
            return TenantQuotaReached(retry_after=max(1.0, value / 1000))
        if kind == "conflict":
            return IdempotencyConflict(job_id=value)
        return Accepted(job_id=value, replayed=kind == "replayed")

    async def lease(self, worker_id: str, *, max_batch: int = 1) -> list[Lease]:
        """The fair next job with up to max_batch - 1 queued mates of its shape; empty when nothing waits."""
        leased = await self._call(
            "lease",
            worker_id=require_name(worker_id, "worker id"),
            max_batch=max_batch,
            batch_budget_ms=self._batch_budget_ms,
        )
        return [
            Lease(job_id=job_id, attempt=attempt, tenant=tenant, request=json.loads(request))
            for job_id, attempt, tenant, request in leased
        ]

    async def renew(self, job_id: str, attempt: int, progress: Progress | None = None) -> Renewal:
        """Keep the lease; new progress becomes an event. LOST when the attempt no longer holds the job."""
        told = asdict(progress) if progress else {}
        return Renewal(await self._call("renew", job_id=job_id, attempt=attempt, **told))

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """End the job; False when the attempt is stale and the outcome was refused."""
        if outcome.state not in TERMINAL:
            raise ValueError(f"{outcome.state} does not end a job; an outcome is one of {', '.join(sorted(TERMINAL))}")
        fields = {
            "artifact": outcome.artifact,
            "facts": None if outcome.facts is None else json.dumps(outcome.facts),
            "error_code": outcome.error_code,
            "error_message": outcome.error_message,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        answer = await self._call("finish", job_id=job_id, attempt=attempt, state=outcome.state, fields=fields)
        return answer == "ok"

    async def release(self, job_id: str, attempt: int, reason: ReleaseReason, *, worker_id: str) -> bool:
        """Give the job back to its old place, or end it when its attempts are spent; False when stale."""
        answer = await self._call("release", job_id=job_id, attempt=attempt, reason=reason, worker_id=worker_id)
        return answer == "ok"

    async def cancel(self, job_id: str) -> Cancellation:
        """Cancel a queued job now, a running one at its worker's next renewal."""
        return Cancellation(await self._call("cancel", job_id=job_id))

    async def reap(self) -> list[str]:
        """Take back jobs whose leases have ended; their ids. `lease` does this too."""
        return await self._call("reap")

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, or None when there is none (any more)."""
        fields: Any = await self._redis.hgetall(self._key("job", job_id))
        return job_record(job_id, fields) if fields else None

    async def ahead(self, job_id: str) -> Ahead | None:
        """What the scheduler will take before this job, as far as can be told; None unless it is queued."""
        answer = await self._call("ahead", job_id=job_id)
        return None if answer is None else Ahead(jobs=answer[0], seconds=answer[1] / 1000)

    async def depth(self) -> QueueDepth:
        """What waits and what runs."""
        async with self._redis.pipeline() as pipeline:
            pipeline.hmget(self._key("counters"), ["depth", "cost_ms"])
            pipeline.zcard(self._key("leases"))
            (queued, cost_ms), running = await pipeline.execute()
        return QueueDepth(queued=int(queued or 0), running=running, predicted_seconds=int(cost_ms or 0) / 1000)

    def events(self, job_id: str, *, after: str = "0-0") -> AsyncIterator[JobEvent]:
        """The job's events after the id `after`, live until its terminal event; at once over for an unknown job.

        ValueError when `after` is not a stream id.
        """
        return follow(
            self._redis,
            job_key=self._key("job", job_id),
            events_key=self._key("events", job_id),
            after=require_stream_id(after),
        )

    async def wait_for_arrival(self, after: str) -> str:
        """Wait a moment for something to lease; the id to pass next time (`after` itself when nothing came)."""
        return await newest_after(self._redis, self._key("arrivals"), require_stream_id(after))

    async def wait_for_cancels(self, after: str) -> tuple[str, list[str]]:
        """Wait a moment for running jobs to be cancelled: the id to pass next time, and their ids.

        It only spares waiting for the next renewal, which tells the same: of very many at once some are passed over.
        """
        return await jobs_after(self._redis, self._key("cancels"), require_stream_id(after))

    async def announce_worker(self, notice: WorkerNotice) -> None:
        """Tell readers that this worker lives; forgotten after a few seconds unless repeated."""
        worker_id = require_name(notice.worker_id, "worker id")
        async with self._redis.pipeline() as pipeline:
            pipeline.set(self._key("worker", worker_id), json.dumps(asdict(notice)), px=WORKER_TTL_MS)
            pipeline.sadd(self._key("workers"), worker_id)
            await pipeline.execute()

    async def retire_worker(self, worker_id: str) -> None:
        """Forget a worker that has stopped."""
        async with self._redis.pipeline() as pipeline:
            pipeline.delete(self._key("worker", worker_id))
            pipeline.srem(self._key("workers"), worker_id)
            await pipeline.execute()

    async def workers(self) -> list[WorkerNotice]:
        """The workers that announced themselves lately."""
        members: Any = await self._redis.smembers(self._key("workers"))
        ids = sorted(members)
        if not ids:
            return []
        notices: Any = await self._redis.mget([self._key("worker", worker_id) for worker_id in ids])
        silent = [worker_id for worker_id, text in zip(ids, notices, strict=True) if text is None]
        if silent:
            await self._redis.srem(self._key("workers"), *silent)
        return [worker_notice(text) for text in notices if text is not None]

    async def set_weights(self, weights: Mapping[str, float]) -> None:
        """Give each tenant its shares of the engines; everybody begins with 1."""
        for tenant, weight in weights.items():
            require_name(tenant, "tenant")
            if not 0.001 <= weight <= 1000:
                raise ValueError(f"weight {weight} of tenant {tenant!r} is out of range; use 0.001 to 1000")
        if weights:
            mapping: Any = {tenant: str(weight) for tenant, weight in weights.items()}
            await self._redis.hset(self._key("weights"), mapping=mapping)

    def _key(self, *names: str) -> str:
        return ":".join((self._prefix, *names))

    async def _call(self, function: str, **arguments: Any) -> Any:
        command = ("FCALL", f"rushes_{function}", 1, self._prefix, json.dumps(arguments | self._keeping))
        try:
            return await self._redis.execute_command(*command)
        except ResponseError as error:
            # A server restarted without its data has lost the library too; nothing ran, so this may be repeated.
            if "Function not found" not in str(error):
                raise
            await self.install()
            return await self._redis.execute_command(*command)


def _admission_fields(job: NewJob) -> dict[str, Any]:
    if not 0 <= job.priority <= 9:
        raise ValueError(f"priority {job.priority} is out of range; use 0 (first) to 9 (last)")
    if not 0 <= job.cost < 1e9:
        raise ValueError(f"cost {job.cost} is not a number of seconds that a job can take")
    fields = {
        "job_id": require_name(job.job_id, "job id"),
        "tenant": require_name(job.tenant, "tenant"),
        "priority": job.priority,
        "shape_key": job.shape_key,
        "cost_ms": round(job.cost * 1000),
        "request": json.dumps(job.request),
        "body_hash": job.body_hash,
    }
    if job.tenant_max_jobs is not None:
        fields["tenant_max_jobs"] = job.tenant_max_jobs
    if job.tenant_max_seconds is not None:
        fields["tenant_max_ms"] = round(job.tenant_max_seconds * 1000)
    if job.webhook is not None:
        fields["webhook"] = job.webhook
    if job.idempotency_key is not None:
        # Hashed, because a client chose it and it becomes part of a key's name.
        fields["idempotency"] = hashlib.sha256(job.idempotency_key.encode()).hexdigest()
    return fields
