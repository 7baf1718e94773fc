"""The library against the model: any sequence of actions gives the same answers and the same states."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from server.queue.client import JobQueue
from server.queue.connection import connect
from server.queue.types import TERMINAL, Accepted, Outcome, QueueFull, ReleaseReason, State, TenantQuotaReached
from tests.server.queue.jobs import PREFIX, end_lease, new_job
from tests.server.queue.model import QueueModel

BOUNDS = {"max_queued_jobs": 6, "max_queued_seconds": 12.0, "max_attempts": 3, "batch_budget_s": 1.5}
JOB_IDS = st.sampled_from([f"j{number}" for number in range(10)])
WORKERS = st.sampled_from(["w1", "w2"])
PICKS = st.integers(0, 5)
ENDS = st.sampled_from(sorted(TERMINAL))
REASONS = st.sampled_from(list(ReleaseReason))


class QueueMachine(RuleBasedStateMachine):
    """Each rule does one thing to both; the invariants compare them and look for what must never be."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._client = connect(url, reply_timeout_s=5.0)
        self._queue = JobQueue(self._client, pool="test", **BOUNDS)
        self._run(self._client.flushdb())
        self._run(self._queue.install())
        self._model = QueueModel(max_jobs=6, max_cost=12.0, max_attempts=3, budget_ms=1500.0)

    def teardown(self) -> None:
        self._run(self._client.aclose())
        self._runner.close()

    def _run(self, awaitable: Any) -> Any:
        async def await_it() -> Any:
            return await awaitable

        return self._runner.run(await_it())

    @rule(
        job_id=JOB_IDS,
        tenant=st.sampled_from(["a", "b", "c"]),
        priority=st.integers(0, 2),
        shape=st.sampled_from(["s", "l"]),
        cost=st.sampled_from([0.5, 1.0, 3.25]),
        quota=st.sampled_from([(None, None), (2, None), (None, 4.0)]),
    )
    def enqueue(
        self,
        job_id: str,
        tenant: str,
        priority: int,
        shape: str,
        cost: float,
        quota: tuple[int | None, float | None],
    ) -> None:
        new = new_job(
            job_id,
            tenant=tenant,
            priority=priority,
            shape_key=shape,
            cost=cost,
            tenant_max_jobs=quota[0],
            tenant_max_seconds=quota[1],
        )
        answer = self._run(self._queue.enqueue(new))
        expected = self._model.enqueue(new)
        if expected in {"full", "tenant_full"}:
            assert isinstance(answer, QueueFull if expected == "full" else TenantQuotaReached)
            assert answer.retry_after >= 1.0
        else:
            assert answer == Accepted(job_id=job_id, replayed=expected == "replayed")

    @rule(worker=WORKERS, max_batch=st.integers(1, 3))
    def lease(self, worker: str, max_batch: int) -> None:
        leases = self._run(self._queue.lease(worker, max_batch=max_batch))
        assert [lease.job_id for lease in leases] == self._model.lease(max_batch)
        assert [lease.attempt for lease in leases] == [self._model.jobs[lease.job_id].attempt for lease in leases]

    @precondition(lambda self: self._model.running)
    @rule(pick=PICKS)
    def renew(self, pick: int) -> None:
        self._renew(*self._running(pick))

    @precondition(lambda self: self._model.running)
    @rule(pick=PICKS, state=ENDS)
    def finish(self, pick: int, state: State) -> None:
        self._finish(*self._running(pick), state)

    @precondition(lambda self: self._model.running)
    @rule(pick=PICKS, reason=REASONS, worker=WORKERS)
    def release(self, pick: int, reason: ReleaseReason, worker: str) -> None:
        self._release(*self._running(pick), reason, worker)

    @precondition(lambda self: self._model.running)
    @rule(pick=PICKS)
    def expire(self, pick: int) -> None:
        job_id, _ = self._running(pick)
        self._run(end_lease(self._client, job_id))
        self._model.expire(job_id)
        assert self._run(self._queue.reap()) == [job_id]

    @rule(job_id=JOB_IDS)
    def cancel(self, job_id: str) -> None:
        assert self._run(self._queue.cancel(job_id)) == self._model.cancel(job_id)

    @precondition(lambda self: self._model.released)
    @rule(pick=PICKS, back=st.integers(0, 1), state=ENDS, reason=REASONS, worker=WORKERS)
    def act_as_a_zombie(self, pick: int, back: int, state: State, reason: ReleaseReason, worker: str) -> None:
        """All that a worker may do whose attempt is over, whatever has become of the job since."""
        jobs = self._model.released
        job = jobs[pick % len(jobs)]
        token = job.new.job_id, max(1, job.attempt - back)
        if not self._model.holds(*token):
            self._renew(*token)
            self._finish(*token, state)
            self._release(*token, reason, worker)

    def _renew(self, job_id: str, attempt: int) -> None:
        assert self._run(self._queue.renew(job_id, attempt)) == self._model.renew(job_id, attempt)

    def _finish(self, job_id: str, attempt: int, state: State) -> None:
        answer = self._run(self._queue.finish(job_id, attempt, Outcome(state=state)))
        assert answer == self._model.finish(job_id, attempt, state)

    def _release(self, job_id: str, attempt: int, reason: ReleaseReason, worker: str) -> None:
        answer = self._run(self._queue.release(job_id, attempt, reason, worker_id=worker))
        assert answer == self._model.release(job_id, attempt, reason, worker)

    def _running(self, pick: int) -> tuple[str, int]:
        job = self._model.running[pick % len(self._model.running)]
        return job.new.job_id, job.attempt

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        for job_id, job in self._model.jobs.items():
            record = self._run(self._queue.get(job_id))
            seen = (record.state, record.attempt, record.cancel_requested, record.error_code)
            assert seen == (job.state, job.attempt, job.cancel, job.error_code), job_id

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        ready, leased, shaped, costs, counters, tenants, load_jobs, load_ms = self._run(self._places())
        states = {job_id: job.state for job_id, job in self._model.jobs.items()}
        assert sorted(ready) == sorted(j for j, state in states.items() if state is State.QUEUED)
        assert sorted(leased) == sorted(j for j, state in states.items() if state is State.RUNNING)
        assert sorted(shaped) == sorted(j for j in ready if not self._model.jobs[j].failures)
        assert costs.keys() == set(ready)
        assert int(counters.get("depth", 0)) == len(ready)
        assert int(counters.get("cost_ms", 0)) == sum(int(cost) for cost in costs.values())
        assert dict(tenants) == self._model.tags
        loads = {tenant: load for tenant in "abc" if (load := self._model.load(tenant))}
        assert load_jobs == {tenant: str(len(load)) for tenant, load in loads.items()}
        assert load_ms == {t: str(sum(round(j.new.cost * 1000) for j in load)) for t, load in loads.items()}

    @invariant()
    def a_job_ends_at_most_once(self) -> None:
        for job_id, job in self._model.jobs.items():
            events = self._run(self._client.xrange(f"{PREFIX}:events:{job_id}"))
            ends = [fields["type"] for _, fields in events if fields["type"] in TERMINAL]
            assert ends == ([job.state] if job.state in TERMINAL else [])
            assert not ends or events[-1][1]["type"] == ends[0]

    async def _places(self) -> tuple[Any, ...]:
        async with self._client.pipeline() as pipeline:
            for tenant in "abc":
                pipeline.zrange(f"{PREFIX}:ready:{tenant}", 0, -1)
            for shape in "sl":
                pipeline.zrange(f"{PREFIX}:shape:{shape}", 0, -1)
            pipeline.zrange(f"{PREFIX}:leases", 0, -1)
            pipeline.hgetall(f"{PREFIX}:costs")
            pipeline.hgetall(f"{PREFIX}:counters")
            pipeline.zrange(f"{PREFIX}:tenants", 0, -1, withscores=True)
            pipeline.hgetall(f"{PREFIX}:load_jobs")
            pipeline.hgetall(f"{PREFIX}:load_ms")
            a, b, c, small, large, *others = await pipeline.execute()
        leased, *figures = others
        return a + b + c, leased, small + large, *figures


def _check(url: str, *, runs: int, steps: int, phases: tuple[Phase, ...]) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(url),
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_the_library_equals_its_model(redis_url: str) -> None:
    """Over random sequences of actions, answers, states and places are those of the model."""
    # Making a found difference small takes minutes; the long test does it.
    _check(redis_url, runs=50, steps=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_library_equals_its_model_for_long(redis_url: str) -> None:
    """The same over 300 runs of 50 steps."""
    _check(redis_url, runs=300, steps=50, phases=tuple(Phase))
