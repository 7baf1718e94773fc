"""Actions of two clients at the same moment: a job has one end, whoever comes first."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.types import TERMINAL, Cancellation, Outcome, ReleaseReason, State
from tests.server.queue.jobs import PREFIX, SUCCESS, new_job

pytestmark = pytest.mark.anyio

RACES = 500


async def _ends(client: redis.Redis, job_id: str) -> list[str]:
    events = await client.xrange(f"{PREFIX}:events:{job_id}")
    return [fields["type"] for _, fields in events if fields["type"] in TERMINAL]


async def _soon(dice: random.Random) -> None:
    """A wait of up to a millisecond, so that neither side is always first."""
    await asyncio.sleep(dice.random() / 1000)


async def test_cancel_against_finish(queue: JobQueue, redis_client: redis.Redis) -> None:
    """Of 500 jobs that are cancelled while they finish each has one end, and it is what its worker was told."""
    dice = random.Random(7)
    seen: Counter[str] = Counter()
    for number in range(RACES):
        job_id = f"j{number}"
        await queue.enqueue(new_job(job_id))
        await queue.lease("w")

        async def finish(job_id: str = job_id) -> State:
            await _soon(dice)
            if await queue.renew(job_id, 1) == "cancel":
                await queue.finish(job_id, 1, Outcome(state=State.CANCELLED))
                return State.CANCELLED
            await _soon(dice)
            assert await queue.finish(job_id, 1, SUCCESS)
            return State.SUCCEEDED

        async def cancel(job_id: str = job_id) -> Cancellation:
            await _soon(dice)
            await _soon(dice)
            return await queue.cancel(job_id)

        believed, answer = await asyncio.gather(finish(), cancel())
        record = await queue.get(job_id)
        assert record is not None
        assert record.state is believed
        assert await _ends(redis_client, job_id) == [believed]
        seen[f"{answer} {believed}"] += 1
    # Every order came up; a cancel that finds the job over says so.
    assert {"requested cancelled", "requested succeeded", "terminal succeeded"} == set(seen)


async def test_cancel_against_lease_and_release(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A job that is cancelled while it is leased or given back is never queued again, and ends as cancelled, once."""
    dice = random.Random(8)
    for number in range(RACES):
        job_id = f"j{number}"
        await queue.enqueue(new_job(job_id))

        async def work() -> None:
            await _soon(dice)
            for lease in await queue.lease("w"):
                await _soon(dice)
                await queue.release(lease.job_id, lease.attempt, ReleaseReason.DRAIN, worker_id="w")

        async def cancel(job_id: str = job_id) -> None:
            await _soon(dice)
            await _soon(dice)
            assert await queue.cancel(job_id) in {Cancellation.CANCELLED, Cancellation.REQUESTED}

        await asyncio.gather(work(), cancel())
        assert await _ends(redis_client, job_id) == ["cancelled"]
        depth = await queue.depth()
        assert (depth.queued, depth.running) == (0, 0)


async def test_two_workers_never_get_one_job(queue: JobQueue) -> None:
    """Twenty workers that lease at once get each job once."""
    for number in range(100):
        await queue.enqueue(new_job(f"j{number}"))
    leases = await asyncio.gather(*(queue.lease(f"w{number}", max_batch=3) for number in range(20)))
    given = [lease.job_id for batch in leases for lease in batch]
    assert len(given) == len(set(given)) == 60
