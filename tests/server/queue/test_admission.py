"""What gets into the queue: idempotency keys, bounds, names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.types import (
    Accepted,
    IdempotencyConflict,
    Progress,
    QueueDepth,
    QueueFull,
    ReleaseReason,
    TenantQuotaReached,
    WorkerNotice,
    WorkerState,
)
from tests.server.queue.jobs import PREFIX, SUCCESS, new_job

pytestmark = pytest.mark.anyio


async def test_one_key_and_body_is_one_job(queue: JobQueue) -> None:
    """Fifty clients with one key and body get one job, and fifty equal answers but for who was first."""
    jobs = [new_job(f"j{n}", idempotency_key="k", body_hash="b") for n in range(50)]
    answers = await asyncio.gather(*(queue.enqueue(job) for job in jobs))
    accepted = [answer for answer in answers if isinstance(answer, Accepted)]
    assert len({answer.job_id for answer in accepted}) == 1
    assert sorted(answer.replayed for answer in accepted) == [False] + [True] * 49
    assert (await queue.depth()).queued == 1


async def test_a_key_is_bound_to_its_body_and_its_tenant(queue: JobQueue) -> None:
    """Another body under the same key is a conflict that names the job; another tenant's equal key is another key."""
    await queue.enqueue(new_job("a", idempotency_key="k", body_hash="1"))
    assert await queue.enqueue(new_job("b", idempotency_key="k", body_hash="2")) == IdempotencyConflict(job_id="a")
    assert await queue.enqueue(new_job("c", tenant="u", idempotency_key="k", body_hash="2")) == Accepted(
        job_id="c", replayed=False
    )


async def test_a_key_replays_even_when_the_queue_is_full(redis_client: redis.Redis) -> None:
    """A repeated request is answered as before, not turned away."""
    queue = JobQueue(redis_client, max_queued_jobs=1)
    await queue.enqueue(new_job("a", idempotency_key="k", body_hash="1"))
    assert isinstance(await queue.enqueue(new_job("b")), QueueFull)
    assert await queue.enqueue(new_job("c", idempotency_key="k", body_hash="1")) == Accepted(job_id="a", replayed=True)


async def test_a_refused_request_leaves_its_key_free(redis_client: redis.Redis) -> None:
    """A key whose request was turned away can be used when there is room."""
    queue = JobQueue(redis_client, max_queued_jobs=1)
    await queue.enqueue(new_job("a"))
    assert isinstance(await queue.enqueue(new_job("b", idempotency_key="k", body_hash="1")), QueueFull)
    await queue.cancel("a")
    assert await queue.enqueue(new_job("b", idempotency_key="k", body_hash="2")) == Accepted(job_id="b", replayed=False)


async def test_an_id_enqueued_twice_is_one_job(queue: JobQueue) -> None:
    """Enqueueing by id may be repeated."""
    await queue.enqueue(new_job("a"))
    assert await queue.enqueue(new_job("a")) == Accepted(job_id="a", replayed=True)
    assert await queue.depth() == QueueDepth(queued=1, running=0, predicted_seconds=1.0)


async def test_the_bound_on_predicted_work(redis_client: redis.Redis) -> None:
    """What exceeds the predicted seconds is refused with the seconds until it would fit, shared by the workers.

    Of 9 s of waiting work 5 must go, which the first two jobs of 3 s do: the one when what runs is made, which takes
    4 s, the other when the one is made.
    """
    queue = JobQueue(redis_client, max_queued_seconds=10.0)
    await queue.enqueue(new_job("running", cost=4.0))
    await queue.lease("w1")
    for name in "abc":
        assert isinstance(await queue.enqueue(new_job(name, cost=3.0)), Accepted)
    assert await queue.enqueue(new_job("d", cost=6.0)) == QueueFull(retry_after=4.0 + 5.0 - 3.0)
    assert isinstance(await queue.enqueue(new_job("e", cost=1.0)), Accepted)
    await queue.cancel("e")
    for worker_id in ("w1", "w2"):
        await queue.announce_worker(_notice(worker_id))
    assert await queue.enqueue(new_job("d", cost=6.0)) == QueueFull(retry_after=3.0)
    await queue.renew("running", 1, Progress(stage="denoise", step=5, num_steps=10))
    assert await queue.enqueue(new_job("d", cost=6.0)) == QueueFull(retry_after=2.0)


async def test_the_bound_on_the_number_of_jobs(redis_client: redis.Redis) -> None:
    """The bound counts waiting jobs only, and there is room when the next of them is begun."""
    queue = JobQueue(redis_client, max_queued_jobs=2)
    await queue.enqueue(new_job("running", cost=5.0))
    await queue.lease("w")
    for name in ("a", "b"):
        await queue.enqueue(new_job(name, cost=6.0))
    assert await queue.enqueue(new_job("c", cost=1.0)) == QueueFull(retry_after=5.0)
    await queue.lease("w2")
    assert isinstance(await queue.enqueue(new_job("c", cost=1.0)), Accepted)


async def test_a_tenants_quota_counts_what_waits_and_what_runs(queue: JobQueue) -> None:
    """A tenant at its bound is refused until one of its jobs has ended; others are not touched by it."""
    for name in ("a", "b"):
        await queue.enqueue(new_job(name, tenant_max_jobs=2, cost=4.0))
    (lease,) = await queue.lease("w")
    assert await queue.enqueue(new_job("c", tenant_max_jobs=2)) == TenantQuotaReached(retry_after=4.0)
    assert isinstance(await queue.enqueue(new_job("d", tenant="u", tenant_max_jobs=2)), Accepted)
    await queue.finish(lease.job_id, lease.attempt, SUCCESS)
    assert isinstance(await queue.enqueue(new_job("c", tenant_max_jobs=2)), Accepted)


async def test_a_tenants_quota_of_predicted_seconds(queue: JobQueue) -> None:
    """The excess is told at the tenant's share of the engines: two tenants wait, so it takes twice as long."""
    await queue.enqueue(new_job("a", cost=8.0))
    await queue.enqueue(new_job("b", tenant="u"))
    assert await queue.enqueue(new_job("c", cost=5.0, tenant_max_seconds=10.0)) == TenantQuotaReached(retry_after=6.0)
    assert isinstance(await queue.enqueue(new_job("c", cost=2.0, tenant_max_seconds=10.0)), Accepted)


async def test_an_empty_queue_takes_a_job_of_any_cost(redis_client: redis.Redis) -> None:
    """A job dearer than the whole bound is not refused for ever."""
    queue = JobQueue(redis_client, max_queued_seconds=10.0)
    assert isinstance(await queue.enqueue(new_job("a", cost=50.0)), Accepted)
    assert isinstance(await queue.enqueue(new_job("b", cost=0.1)), QueueFull)


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": "a/b"},
        {"job_id": ""},
        {"job_id": "x" * 65},
        {"job_id": "..", "tenant": "t"},
        {"tenant": "a b"},
        {"tenant": "a}:job"},
        {"priority": 10},
        {"priority": -1},
        {"cost": float("nan")},
        {"cost": -1.0},
    ],
)
async def test_malformed_jobs_are_refused(queue: JobQueue, change: dict[str, Any]) -> None:
    """Names that could leave their place in a key or a path, and numbers out of range, never reach Redis."""
    with pytest.raises(ValueError, match=r"is not a|out of range"):
        await queue.enqueue(new_job(**({"job_id": "a"} | change)))
    assert (await queue.depth()).queued == 0


async def test_everything_expires(redis_client: redis.Redis) -> None:
    """Of finished jobs, however they ended, nothing stays for longer than its time but a fixed set of keys."""
    queue = JobQueue(redis_client, pool="test", retention_s=3600, idempotency_s=1800, max_attempts=1)
    for name in ("a", "b", "c"):
        await queue.enqueue(new_job(name, idempotency_key=name, body_hash="b", tenant=f"t-{name}"))
    await queue.cancel("c")
    leases = await queue.lease("w", max_batch=2)
    assert await queue.finish(leases[0].job_id, 1, SUCCESS)
    assert await queue.release(leases[1].job_id, 1, ReleaseReason.STALL, worker_id="w")
    fixed = {f"{PREFIX}:{name}" for name in ("counters", "arrivals", "idle", "dead")}
    for key in set(await redis_client.keys("*")) - fixed:
        limit = 1800 if ":idem:" in key else 3600
        assert 0 < await redis_client.pttl(key) <= limit * 1000, key


async def test_a_key_may_not_outlive_its_job(redis_client: redis.Redis) -> None:
    """Settings under which a replayed answer would name a forgotten job are refused."""
    with pytest.raises(ValueError, match="outlives"):
        JobQueue(redis_client, retention_s=10, idempotency_s=11)


def _notice(worker_id: str) -> WorkerNotice:
    return WorkerNotice(worker_id=worker_id, model="m", state=WorkerState.READY, max_batch=1, cost_model={})
