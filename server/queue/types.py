"""Job states, their one transition table, and the plain records that cross the queue's border."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a job is; SUCCEEDED, FAILED and CANCELLED are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What moves a job; each is one atomic function of the Redis library."""

    ENQUEUE = "enqueue"
    LEASE = "lease"
    RENEW = "renew"
    FINISH_SUCCEEDED = "finish_succeeded"
    FINISH_FAILED = "finish_failed"
    FINISH_CANCELLED = "finish_cancelled"
    RELEASE = "release"
    CANCEL = "cancel"
    REAP = "reap"


# (state before, action) -> states it may lead to. What is absent is refused: the functions answer stale, lost or
# terminal. RELEASE and REAP end a job as FAILED when its attempts are spent, as CANCELLED when cancel was asked for.
TRANSITIONS: dict[tuple[State | None, Action], frozenset[State]] = {
    (None, Action.ENQUEUE): frozenset({State.QUEUED}),
    (State.QUEUED, Action.LEASE): frozenset({State.RUNNING}),
    (State.QUEUED, Action.CANCEL): frozenset({State.CANCELLED}),
    (State.RUNNING, Action.RENEW): frozenset({State.RUNNING}),
    (State.RUNNING, Action.CANCEL): frozenset({State.RUNNING}),
    (State.RUNNING, Action.FINISH_SUCCEEDED): frozenset({State.SUCCEEDED}),
    (State.RUNNING, Action.FINISH_FAILED): frozenset({State.FAILED}),
    (State.RUNNING, Action.FINISH_CANCELLED): frozenset({State.CANCELLED}),
    (State.RUNNING, Action.RELEASE): frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    (State.RUNNING, Action.REAP): frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
}

TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job as admission makes it: every parameter, the seed included, is fixed here, so that a retry is the same film.

    `request` is what `server.queue.request_document.to_document` makes of a `GenerationRequest` and an output format;
    `cost` is predicted engine seconds; `body_hash` binds an idempotency key to one body; `priority` is 0 to 9, smaller
    runs sooner, and orders a tenant's own jobs only: between tenants the scheduler is fair. `tenant_max_jobs` and
    `tenant_max_seconds` bound what the tenant has waiting and running, in jobs and in predicted seconds. `webhook` is
    the URL that is told of the job's end.
    """

    job_id: str
    tenant: str
    priority: int
    shape_key: str
    cost: float
    request: dict[str, Any]
    idempotency_key: str | None = None
    body_hash: str = ""
    tenant_max_jobs: int | None = None
    tenant_max_seconds: float | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The job is in the queue (`replayed`: it already was, under the same idempotency key and body)."""

    job_id: str
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFull:
    """The bound on predicted work, or on the number of waiting jobs, is reached; `retry_after` is in seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuotaReached:
    """The tenant has as much waiting and running as it may; `retry_after` is in seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyConflict:
    """The idempotency key was used with another body by `job_id`."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One leased attempt; (job_id, attempt) is the fencing token for renew, finish and release."""

    job_id: str
    attempt: int
    tenant: str
    request: dict[str, Any]


class Renewal(StrEnum):
    """What renew answers: carry on, stop because the user cancelled, or stop because the lease is somebody else's."""

    OK = "ok"
    CANCEL = "cancel"
    LOST = "lost"


class Cancellation(StrEnum):
    """What cancel answers; REQUESTED means that the worker is told at its next renewal."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    TERMINAL = "terminal"
    UNKNOWN = "unknown"


class ReleaseReason(StrEnum):
    """Why an attempt is given back: DRAIN costs nothing, a CRASH, a STALL or a refusing STORAGE uses up the attempt."""

    DRAIN = "drain"
    CRASH = "crash"
    STALL = "stall"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a renewal carries up: the stage, and steps done of steps in all."""

    stage: str
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What finish carries: a terminal state with an artifact name and facts about it, or an error code and text."""

    state: State
    artifact: str | None = None
    facts: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as a reader sees it; times are Unix seconds by Redis's clock."""

    job_id: str
    tenant: str
    state: State
    attempt: int
    priority: int
    shape_key: str
    cost: float
    request: dict[str, Any]
    created_at: float
    started_at: float | None
    finished_at: float | None
    progress: Progress | None
    cancel_requested: bool
    webhook: str | None
    artifact: str | None
    facts: dict[str, Any] | None
    error_code: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One entry of a job's event stream; `id` is the stream id, fit for SSE's `id:` and `Last-Event-ID`.

    `type` is queued, running, progress, retrying, cancelling, or the terminal state: succeeded, failed, cancelled.
    """

    id: str
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How much waits and runs in a pool; `predicted_seconds` is the engine time of the waiting jobs."""

    queued: int
    running: int
    predicted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What comes before a queued job if nothing else arrives: queued jobs, and engine seconds of these and of the
    running ones. It is work, not time: divide by the number of ready workers."""

    jobs: int
    seconds: float


class WorkerState(StrEnum):
    """What a worker says of itself: it loads its engine, takes jobs, has no room for films, or finishes its last."""

    LOADING = "loading"
    READY = "ready"
    BLOCKED = "blocked"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNotice:
    """A worker's announcement, for readiness and estimates; `cost_model` is the JSON its engine tells of its speed."""

    worker_id: str
    model: str
    state: WorkerState
    max_batch: int
    cost_model: dict[str, Any]
