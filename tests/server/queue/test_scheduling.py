"""Who is next: fairness between tenants, order within one, batches of one shape, and looking ahead."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.types import Ahead, Progress, ReleaseReason
from tests.server.queue.jobs import PREFIX, SUCCESS, new_job

pytestmark = pytest.mark.anyio


async def _serve(queue: JobQueue, count: int, *, max_batch: int = 1) -> list[str]:
    """The tenants of the next jobs, each finished before the next lease."""
    tenants: list[str] = []
    while len(tenants) < count:
        for lease in await queue.lease("w", max_batch=max_batch):
            tenants.append(lease.tenant)
            await queue.finish(lease.job_id, lease.attempt, SUCCESS)
    return tenants


async def _ahead(queue: JobQueue, job_id: str) -> Ahead:
    ahead = await queue.ahead(job_id)
    assert ahead is not None
    return ahead


async def test_a_quiet_tenant_does_not_wait_behind_a_flood(queue: JobQueue) -> None:
    """With 100 jobs of one tenant waiting, another's job that comes later is the next but one at most."""
    for number in range(100):
        await queue.enqueue(new_job(f"flood{number}", tenant="flood", cost=2.0))
    await _serve(queue, 10)
    await queue.enqueue(new_job("quiet0", tenant="quiet"))
    assert "quiet" in await _serve(queue, 2)


async def test_shares_follow_the_weights_by_cost(queue: JobQueue) -> None:
    """Over a long run engine time, not the number of jobs, is shared as the weights say, within a tenth."""
    await queue.set_weights({"heavy": 3.0})
    for number in range(80):
        await queue.enqueue(new_job(f"h{number}", tenant="heavy", cost=1.0))
        await queue.enqueue(new_job(f"l{number}", tenant="light", cost=2.0))
    served = Counter(await _serve(queue, 70))
    assert served["heavy"] * 1.0 / (served["light"] * 2.0) == pytest.approx(3.0, rel=0.1)


async def test_an_idle_tenant_saves_nothing_up(queue: JobQueue) -> None:
    """A tenant that was away gets its share from now on, not the share of the time it was away."""
    for number in range(40):
        await queue.enqueue(new_job(f"a{number}", tenant="a"))
    await _serve(queue, 20)
    for number in range(20):
        await queue.enqueue(new_job(f"b{number}", tenant="b"))
    served = Counter(await _serve(queue, 10))
    assert served["b"] in {4, 5, 6}


async def test_coming_one_by_one_gains_nothing(queue: JobQueue) -> None:
    """A tenant that enqueues a job each time its last was leased gets no more than one with a stock."""
    for number in range(20):
        await queue.enqueue(new_job(f"z{number}", tenant="z"))
    served: Counter[str] = Counter()
    for number in range(20):
        await queue.enqueue(new_job(f"a{number}", tenant="a"))
        served.update(await _serve(queue, 1))
        if served["a"] + served["z"] == number + 1 and number % 2:
            assert abs(served["a"] - served["z"]) <= 1


async def test_a_tenants_own_order_is_priority_then_arrival(queue: JobQueue) -> None:
    """Smaller priorities first, then first come first served."""
    for name, priority in (("late", 5), ("a", 1), ("b", 1), ("first", 0)):
        await queue.enqueue(new_job(name, priority=priority))
    order = [(await queue.lease("w"))[0].job_id for _ in range(4)]
    assert order == ["first", "a", "b", "late"]


async def test_a_job_that_waits_long_enough_outruns_a_better_priority(redis_client: redis.Redis) -> None:
    """Each step of priority is worth `ageing_s` of waiting, no more."""
    queue = JobQueue(redis_client, pool="test", ageing_s=0.05)
    await queue.enqueue(new_job("patient", priority=2))
    await queue.enqueue(new_job("pushing", priority=0))
    await asyncio.sleep(0.11)
    await queue.enqueue(new_job("late", priority=0))
    assert [(await queue.lease("w"))[0].job_id for _ in range(3)] == ["pushing", "patient", "late"]


async def test_a_clock_that_was_set_back_changes_no_order(queue: JobQueue, redis_client: redis.Redis) -> None:
    """Jobs come later than those before them, though Redis's clock may say otherwise."""
    await queue.enqueue(new_job("a"))
    arrived = float(await redis_client.hget(f"{PREFIX}:counters", "arrival") or 0)
    await redis_client.hset(f"{PREFIX}:counters", "arrival", str(int(arrived + 3600e6)))
    for name in "bcd":
        await queue.enqueue(new_job(name))
    assert [(await queue.lease("w"))[0].job_id for _ in range(4)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("reason", list(ReleaseReason))
async def test_what_is_given_back_takes_its_old_place(queue: JobQueue, reason: ReleaseReason) -> None:
    """A job whose attempt failed or was drained is next again, though others wait and its tenant was charged."""
    for name in ("a", "b"):
        await queue.enqueue(new_job(name, cost=60.0))
        await queue.enqueue(new_job(f"u-{name}", tenant="u"))
    (lease,) = await queue.lease("w")
    assert lease.job_id == "a"
    await queue.release("a", 1, reason, worker_id="w")
    (again,) = await queue.lease("w")
    assert (again.job_id, again.attempt) == ("a", 2)


async def test_mates_are_of_one_shape_and_in_order(queue: JobQueue) -> None:
    """A batch is filled up to its size with jobs of the head's shape, and no others."""
    for name, shape in (("a", "s"), ("b", "l"), ("c", "s"), ("d", "s"), ("e", "s")):
        await queue.enqueue(new_job(name, shape_key=shape))
    assert [lease.job_id for lease in await queue.lease("w", max_batch=3)] == ["a", "c", "d"]
    assert [lease.job_id for lease in await queue.lease("w", max_batch=3)] == ["b"]
    assert [lease.job_id for lease in await queue.lease("w", max_batch=3)] == ["e"]


async def test_mates_pay_for_their_ride(queue: JobQueue) -> None:
    """Tenants share a batch, and each is charged its own jobs: who rode along waits longer afterwards."""
    for number in range(4):
        await queue.enqueue(new_job(f"a{number}", tenant="a", shape_key="s"))
    await queue.enqueue(new_job("b0", tenant="b", shape_key="l"))
    await queue.enqueue(new_job("c0", tenant="c", shape_key="s"))
    batch = await queue.lease("w", max_batch=8)
    assert [lease.job_id for lease in batch] == ["a0", "a1", "a2", "a3", "c0"]
    await queue.enqueue(new_job("a9", tenant="a", shape_key="l"))
    assert (await queue.lease("w"))[0].job_id == "b0"


async def test_the_batch_budget_bounds_how_far_mates_run_ahead(redis_client: redis.Redis) -> None:
    """While another tenant waits, a tenant's mates stop when it is the budget ahead; alone it fills the batch."""
    queue = JobQueue(redis_client, pool="test", batch_budget_s=2.0)
    for number in range(10):
        await queue.enqueue(new_job(f"a{number}", tenant="a", shape_key="s"))
    await queue.enqueue(new_job("b0", tenant="b", shape_key="l"))
    assert len(await queue.lease("w", max_batch=8)) == 3
    assert [lease.job_id for lease in await queue.lease("w", max_batch=8)] == ["b0"]
    assert len(await queue.lease("w", max_batch=8)) == 7


async def test_who_failed_once_runs_alone(queue: JobQueue) -> None:
    """A job that crashed or hung a child shares no batch again, so that it cannot take mates with it."""
    for name in ("bad", "good", "fine"):
        await queue.enqueue(new_job(name))
    for lease in await queue.lease("w", max_batch=2):
        await queue.release(lease.job_id, lease.attempt, ReleaseReason.CRASH, worker_id="w")
    batches = [[lease.job_id for lease in await queue.lease("w", max_batch=4)] for _ in range(3)]
    assert batches == [["bad"], ["good"], ["fine"]]


async def test_positions_foretell_the_order_of_leases(queue: JobQueue) -> None:
    """With three tenants, uneven costs and priorities, each job's position is its place in what is then leased."""
    for number in range(18):
        tenant = "abc"[number * 7 % 3]
        job = new_job(f"j{number}", tenant=tenant, priority=number % 2, cost=0.5 + (number * 5 % 4))
        await queue.enqueue(job)
    foretold = {f"j{number}": (await _ahead(queue, f"j{number}")).jobs for number in range(18)}
    order = [(await queue.lease("w"))[0].job_id for _ in range(18)]
    assert foretold == {job_id: place for place, job_id in enumerate(order)}
    assert await queue.ahead("j0") is None
    assert await queue.ahead("unknown") is None


async def test_seconds_ahead_count_waiting_and_running_work(queue: JobQueue) -> None:
    """Work ahead is what waits before a job plus what is left of the running ones by their steps."""
    await queue.enqueue(new_job("a", cost=10.0))
    await queue.enqueue(new_job("b", cost=3.0))
    await queue.enqueue(new_job("c", cost=1.0))
    assert [(await _ahead(queue, name)).seconds for name in "abc"] == [0.0, 10.0, 13.0]
    await queue.lease("w")
    await queue.renew("a", 1, Progress(stage="denoise", step=6, num_steps=8))
    assert await queue.ahead("a") is None
    assert [(await _ahead(queue, name)).seconds for name in "bc"] == [2.5, 5.5]


async def test_counters_survive_a_thousand_jobs(queue: JobQueue, redis_client: redis.Redis) -> None:
    """After a thousand jobs with awkward costs the counters are back at nought exactly."""
    for number in range(1000):
        await queue.enqueue(new_job(f"j{number}", cost=0.1 + number / 977))
        await queue.cancel(f"j{number}") if number % 3 else await _serve(queue, 1)
    counters = await redis_client.hgetall(f"{PREFIX}:counters")
    assert (counters["depth"], counters["cost_ms"]) == ("0", "0")


async def test_a_long_line_is_foretold_by_its_beginning(queue: JobQueue) -> None:
    """Of hundreds of jobs not each is read; of equal ones the place and the seconds are right all the same."""
    for number in range(250):
        await queue.enqueue(new_job(f"a{number}", tenant="a", cost=2.0))
    for number in range(300):
        await queue.enqueue(new_job(f"b{number}", tenant="b", cost=1.0))
    last = await _ahead(queue, "a249")
    assert (last.jobs, last.seconds) == (249 + 300, 249 * 2.0 + 300 * 1.0)
    middle = await _ahead(queue, "b249")
    # By equal shares of time, 249 s of b's jobs stand beside as many seconds of a's, whose turn comes first on a tie.
    assert (middle.jobs, middle.seconds) == (249 + 125, 249 * 1.0 + 125 * 2.0)
