"""Leases, fences and poison: what an attempt may do, and what becomes of a job whose attempts fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.library import LIBRARY_PATH
from server.queue.types import Cancellation, Outcome, Progress, ReleaseReason, Renewal, State
from tests.server.queue.jobs import PREFIX, SUCCESS, end_lease, new_job

pytestmark = pytest.mark.anyio

FENCE = " and tonumber(job[2]) == q.attempt\nend"


async def _outcomes_of_a_stalled_job(queue: JobQueue, client: redis.Redis) -> list[bool]:
    """A worker stalls past its lease, another takes the job over; then both finish, the zombie first."""
    await queue.enqueue(new_job("j"))
    (stalled,) = await queue.lease("zombie")
    await end_lease(client, "j")
    (taken,) = await queue.lease("other")
    assert taken.attempt == stalled.attempt + 1
    late = Outcome(state=State.SUCCEEDED, artifact="j/1.mp4")
    true = Outcome(state=State.SUCCEEDED, artifact="j/2.mp4")
    return [await queue.finish("j", stalled.attempt, late), await queue.finish("j", taken.attempt, true)]


async def test_a_zombies_outcome_is_refused(queue: JobQueue, redis_client: redis.Redis) -> None:
    """Of two workers that both finished, the one that holds the lease is believed, and the film is its film."""
    assert await _outcomes_of_a_stalled_job(queue, redis_client) == [False, True]
    record = await queue.get("j")
    assert record is not None
    assert record.artifact == "j/2.mp4"
    assert record.facts is None


@pytest.fixture
async def unfenced(queue: JobQueue, redis_client: redis.Redis) -> AsyncIterator[JobQueue]:
    """The same library without the comparison of the attempt."""
    library = LIBRARY_PATH.read_text()
    assert library.count(FENCE) == 1
    await redis_client.function_load(library.replace(FENCE, "\nend"), replace=True)
    yield queue
    await queue.install()


async def test_without_the_fence_the_zombie_is_believed(unfenced: JobQueue, redis_client: redis.Redis) -> None:
    """Control: the test above sees the fault when the fence is taken out."""
    assert await _outcomes_of_a_stalled_job(unfenced, redis_client) == [True, False]


async def test_a_zombie_can_neither_renew_nor_release(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A lost attempt cannot steal the lease back, report progress, or give the job away."""
    await queue.enqueue(new_job("j"))
    await queue.lease("zombie")
    await end_lease(redis_client, "j")
    await queue.lease("other")
    assert await queue.renew("j", 1, Progress(stage="denoise", step=9, num_steps=9)) is Renewal.LOST
    assert not await queue.release("j", 1, ReleaseReason.CRASH, worker_id="zombie")
    record = await queue.get("j")
    assert record is not None
    assert (record.state, record.attempt, record.progress) == (State.RUNNING, 2, None)


async def test_a_lease_that_ended_unnoticed_can_still_be_finished(queue: JobQueue, redis_client: redis.Redis) -> None:
    """As long as nobody took the job over, a late renewal or outcome is welcome."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    await end_lease(redis_client, "j")
    assert await queue.renew("j", 1) is Renewal.OK
    assert await queue.reap() == []
    assert await queue.finish("j", 1, SUCCESS)


async def test_a_clock_that_was_set_back_holds_no_job_for_longer(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A lease that seems to end in an hour, because the clock was an hour ahead when it was given, ends in its time."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    deadline = await redis_client.zscore(f"{PREFIX}:leases", "j")
    assert deadline is not None
    await redis_client.zadd(f"{PREFIX}:leases", {"j": deadline + 3_600_000})
    assert await queue.reap() == []
    shortened = await redis_client.zscore(f"{PREFIX}:leases", "j")
    assert shortened is not None
    assert deadline <= shortened < deadline + 60_000


async def test_three_lost_leases_end_a_job(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A job whose worker vanishes three times is given up, listed as dead, and says why."""
    await queue.enqueue(new_job("j"))
    for number in range(3):
        await queue.lease(f"w{number}")
        await end_lease(redis_client, "j")
    assert await queue.lease("w9") == []
    record = await queue.get("j")
    assert record is not None
    assert (record.state, record.error_code) == (State.FAILED, "attempts_exhausted")
    assert await redis_client.zrange(f"{PREFIX}:dead", 0, -1) == ["j"]


async def test_two_crashes_on_two_workers_end_a_job(queue: JobQueue) -> None:
    """A job that crashes two different workers is given up at once."""
    await queue.enqueue(new_job("j"))
    for number in (1, 2):
        await queue.lease(f"w{number}")
        await queue.release("j", number, ReleaseReason.CRASH, worker_id=f"w{number}")
    record = await queue.get("j")
    assert record is not None
    assert (record.state, record.error_code) == (State.FAILED, "worker_crashed_twice")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (ReleaseReason.CRASH, "attempts_exhausted"),
        (ReleaseReason.STALL, "attempts_exhausted"),
        (ReleaseReason.STORAGE, "storage_error"),
    ],
)
async def test_one_worker_tries_three_times(queue: JobQueue, reason: ReleaseReason, code: str) -> None:
    """Where there is but one worker, a job has three attempts, and its end names what its film met."""
    await queue.enqueue(new_job("j"))
    for attempt in (1, 2, 3):
        (lease,) = await queue.lease("w")
        assert lease.attempt == attempt
        await queue.release("j", attempt, reason, worker_id="w")
    record = await queue.get("j")
    assert record is not None
    assert record.error_code == code


async def test_drains_cost_nothing(queue: JobQueue) -> None:
    """A job may be drained any number of times."""
    await queue.enqueue(new_job("j"))
    for attempt in range(1, 11):
        (lease,) = await queue.lease(f"w{attempt}")
        assert await queue.release("j", lease.attempt, ReleaseReason.DRAIN, worker_id=f"w{attempt}")
    record = await queue.get("j")
    assert record is not None
    assert (record.state, record.attempt) == (State.QUEUED, 10)


async def test_cancelling_reaches_the_worker_with_its_renewal(queue: JobQueue) -> None:
    """A running job's cancellation is requested, told by renew, and ended by whoever holds the lease."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    assert await queue.renew("j", 1) is Renewal.OK
    assert await queue.cancel("j") is Cancellation.REQUESTED
    assert await queue.cancel("j") is Cancellation.REQUESTED
    assert await queue.renew("j", 1) is Renewal.CANCEL
    assert await queue.finish("j", 1, Outcome(state=State.CANCELLED))
    assert await queue.cancel("j") is Cancellation.TERMINAL


async def test_a_cancelled_job_of_a_lost_worker_is_not_tried_again(queue: JobQueue, redis_client: redis.Redis) -> None:
    """Reaping ends a job that was to be cancelled."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    await queue.cancel("j")
    await end_lease(redis_client, "j")
    assert await queue.reap() == ["j"]
    record = await queue.get("j")
    assert record is not None
    assert record.state is State.CANCELLED


async def test_an_outcome_must_be_terminal(queue: JobQueue) -> None:
    """Finishing with a state that is no end is the caller's mistake."""
    with pytest.raises(ValueError, match="does not end a job"):
        await queue.finish("j", 1, Outcome(state=State.QUEUED))
