"""The queue as it should be, in plain Python without Redis: what the library is compared with, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.queue.types import TERMINAL, Cancellation, NewJob, ReleaseReason, Renewal, State


@dataclass
class ModelJob:
    """A job of the model; `order` is its place within its tenant."""

    new: NewJob
    order: tuple[int, int]
    state: State = State.QUEUED
    attempt: int = 0
    failures: int = 0
    cancel: bool = False
    crashed_on: str | None = None
    finished_by: int | None = None
    error_code: str | None = None


@dataclass
class QueueModel:
    """Jobs, leases and fairness with the given bounds; answers are those of `JobQueue`, and job ids for leases."""

    max_jobs: int
    max_cost: float
    max_attempts: int
    budget_ms: float
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    tags: dict[str, float] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0
    sequence: int = 0

    def queued(self, tenant: str | None = None) -> list[ModelJob]:
        """Queued jobs, of one tenant or of all, in order."""
        found = [j for j in self.jobs.values() if j.state is State.QUEUED and tenant in (None, j.new.tenant)]
        return sorted(found, key=lambda job: job.order)

    @property
    def running(self) -> list[ModelJob]:
        """Jobs with a lease."""
        return [job for job in self.jobs.values() if job.state is State.RUNNING]

    @property
    def released(self) -> list[ModelJob]:
        """Jobs of which some attempt is over."""
        return [job for job in self.jobs.values() if job.attempt > (job.state is State.RUNNING)]

    def load(self, tenant: str) -> list[ModelJob]:
        """What the tenant has waiting and running."""
        return [j for j in self.jobs.values() if j.state not in TERMINAL and j.new.tenant == tenant]

    def enqueue(self, new: NewJob) -> str:
        """accepted, replayed, full or tenant_full."""
        if new.job_id in self.jobs:
            return "replayed"
        own = self.load(new.tenant)
        most, longest = new.tenant_max_jobs, new.tenant_max_seconds
        if own and most is not None and len(own) >= most:
            return "tenant_full"
        if own and longest is not None and sum(job.new.cost for job in own) + new.cost > longest:
            return "tenant_full"
        waiting = self.queued()
        cost = sum(job.new.cost for job in waiting)
        if waiting and (len(waiting) >= self.max_jobs or cost + new.cost > self.max_cost):
            return "full"
        self.sequence += 1
        self.jobs[new.job_id] = ModelJob(new, (new.priority, self.sequence))
        self._push(new.tenant)
        return "accepted"

    def lease(self, max_batch: int) -> list[str]:
        """The ids that the next lease gives."""
        if not self.tags:
            return []
        tenant = min(self.tags, key=lambda name: (self.tags[name], name))
        self.clock = self.tags[tenant]
        self.idle = {name: tag for name, tag in self.idle.items() if tag > self.clock}
        head = self.queued(tenant)[0]
        mates = [j for j in self.queued() if j.new.shape_key == head.new.shape_key and not j.failures and j is not head]
        batch = [self._start(head)]
        if head.failures:
            return batch
        for mate in mates:
            if len(batch) == max_batch:
                break
            if len(self.tags) <= 1 or self._virtual(mate.new.tenant) <= self.clock + self.budget_ms:
                batch.append(self._start(mate))
        return batch

    def holds(self, job_id: str, attempt: int) -> bool:
        """Whether the attempt has the lease."""
        job = self.jobs[job_id]
        return job.state is State.RUNNING and job.attempt == attempt

    def renew(self, job_id: str, attempt: int) -> Renewal:
        """What renew answers."""
        if not self.holds(job_id, attempt):
            return Renewal.LOST
        return Renewal.CANCEL if self.jobs[job_id].cancel else Renewal.OK

    def finish(self, job_id: str, attempt: int, state: State) -> bool:
        """What finish answers; a repetition of the accepted finish is told yes again."""
        job = self.jobs[job_id]
        if self.holds(job_id, attempt):
            job.state, job.finished_by = state, attempt
            return True
        return job.state is state and job.finished_by == attempt

    def release(self, job_id: str, attempt: int, reason: ReleaseReason, worker: str) -> bool:
        """What release answers."""
        if not self.holds(job_id, attempt):
            return False
        self._give_back(self.jobs[job_id], reason, worker)
        return True

    def expire(self, job_id: str) -> None:
        """The job's lease, if it has one, ends and is reaped."""
        if self.jobs[job_id].state is State.RUNNING:
            self._give_back(self.jobs[job_id], "lease_expired", "")

    def cancel(self, job_id: str) -> Cancellation:
        """What cancel answers."""
        job = self.jobs.get(job_id)
        if job is None:
            return Cancellation.UNKNOWN
        if job.state in TERMINAL:
            return Cancellation.TERMINAL
        if job.state is State.RUNNING:
            job.cancel = True
            return Cancellation.REQUESTED
        job.state = State.CANCELLED
        self._rest(job.new.tenant)
        return Cancellation.CANCELLED

    def _virtual(self, tenant: str) -> float:
        return self.tags[tenant] if tenant in self.tags else max(self.clock, self.idle.get(tenant, 0.0))

    def _push(self, tenant: str) -> None:
        self.tags.setdefault(tenant, self._virtual(tenant))
        self.idle.pop(tenant, None)

    def _rest(self, tenant: str) -> None:
        if not self.queued(tenant) and tenant in self.tags:
            self.idle[tenant] = self.tags.pop(tenant)

    def _start(self, job: ModelJob) -> str:
        self.tags[job.new.tenant] += round(job.new.cost * 1000)
        job.state = State.RUNNING
        job.attempt += 1
        self._rest(job.new.tenant)
        return job.new.job_id

    def _give_back(self, job: ModelJob, reason: str, worker: str) -> None:
        if job.cancel:
            job.state = State.CANCELLED
            return
        if reason != ReleaseReason.DRAIN:
            job.failures += 1
        if reason == ReleaseReason.CRASH:
            if job.crashed_on not in (None, worker):
                job.state, job.error_code = State.FAILED, "worker_crashed_twice"
                return
            job.crashed_on = worker
        if reason != ReleaseReason.DRAIN and job.failures >= self.max_attempts:
            code = "storage_error" if reason == ReleaseReason.STORAGE else "attempts_exhausted"
            job.state, job.error_code = State.FAILED, code
            return
        tenant = job.new.tenant
        refunded = self._virtual(tenant) - round(job.new.cost * 1000)
        (self.tags if tenant in self.tags else self.idle)[tenant] = refunded
        job.state = State.QUEUED
        self._push(tenant)
