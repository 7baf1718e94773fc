"""The event stream of a job, live and resumed."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.types import JobEvent, Outcome, Progress, ReleaseReason, State
from tests.server.queue.jobs import PREFIX, SUCCESS, new_job

pytestmark = pytest.mark.anyio


async def _run(queue: JobQueue, steps: int) -> None:
    await queue.lease("w")
    for step in range(1, steps + 1):
        await queue.renew("j", 1, Progress(stage="denoise", step=step, num_steps=steps))
    await queue.finish("j", 1, SUCCESS)


async def _collect(queue: JobQueue, after: str = "0-0") -> list[JobEvent]:
    return [event async for event in queue.events("j", after=after)]


async def test_events_arrive_live_and_end_with_the_job(queue: JobQueue) -> None:
    """A follower that was there from the start sees every event once, in order, and is let go at the end."""
    await queue.enqueue(new_job("j"))
    follower = asyncio.create_task(_collect(queue))
    await _run(queue, 3)
    events = await follower
    assert [event.type for event in events] == ["queued", "running", "progress", "progress", "progress", "succeeded"]
    assert events[3].data == {"stage": "denoise", "step": 2, "num_steps": 3}
    assert events[-1].data == {"attempt": 1}


async def test_any_event_can_be_resumed_from(queue: JobQueue) -> None:
    """Following again after any event's id gives exactly the rest; after the last one, nothing, at once."""
    await queue.enqueue(new_job("j"))
    await _run(queue, 4)
    events = await _collect(queue)
    for number, event in enumerate(events):
        assert await _collect(queue, event.id) == events[number + 1 :]


async def test_an_unknown_job_has_no_events(queue: JobQueue) -> None:
    """Following a job that is not there ends at once."""
    assert await _collect(queue) == []


@pytest.mark.parametrize(
    "after", ["", "x", "1-2-3", "$", "-1", "1\n", "9" * 21, str(2**64), f"1-{2**64}", "0-0 COUNT 5"]
)
async def test_only_event_ids_are_followed_from(queue: JobQueue, after: str) -> None:
    """Whatever a client sends as the last id it saw, only an id gets to Redis."""
    with pytest.raises(ValueError, match="is not an event id"):
        await _collect(queue, after)


async def test_a_retry_is_told(queue: JobQueue) -> None:
    """A follower learns that an attempt was lost, why, and that another began; progress starts anew."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    await queue.renew("j", 1, Progress(stage="denoise", step=1, num_steps=2))
    await queue.release("j", 1, ReleaseReason.CRASH, worker_id="w")
    await queue.lease("w")
    await queue.renew("j", 2, Progress(stage="denoise", step=1, num_steps=2))
    await queue.finish("j", 2, Outcome(state=State.FAILED, error_code="engine_error", error_message="it failed"))
    events = await _collect(queue)
    assert [event.type for event in events] == [
        "queued", "running", "progress", "retrying", "running", "progress", "failed"
    ]  # fmt: skip
    assert events[3].data == {"attempt": 1, "reason": "crash"}
    assert events[-1].data == {"attempt": 2, "error_code": "engine_error", "error_message": "it failed"}


async def test_equal_progress_is_told_once(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A renewal that brings nothing new adds no event."""
    await queue.enqueue(new_job("j"))
    await queue.lease("w")
    for _ in range(5):
        await queue.renew("j", 1, Progress(stage="denoise", step=1, num_steps=2))
        await queue.renew("j", 1)
    assert await redis_client.xlen(f"{PREFIX}:events:j") == 3


async def test_a_long_stream_keeps_its_end(redis_client: redis.Redis) -> None:
    """The stream is capped, and what it drops is the oldest, never the end."""
    queue = JobQueue(redis_client, pool="test", max_events=10)
    await queue.enqueue(new_job("j"))
    await _run(queue, 50)
    events = await _collect(queue)
    assert len(events) == 10
    assert events[-1].type == "succeeded"


async def test_many_followers_share_one_job(queue: JobQueue) -> None:
    """A hundred followers each see everything; a follower is one connection, not more."""
    await queue.enqueue(new_job("j"))
    followers = [asyncio.create_task(_collect(queue)) for _ in range(100)]
    await _run(queue, 2)
    seen = await asyncio.gather(*followers)
    assert all(events == seen[0] for events in seen)
    assert len(seen[0]) == 5


async def test_ends_of_jobs_with_a_webhook_go_to_the_outbox(queue: JobQueue, redis_client: redis.Redis) -> None:
    """However such a job ends, its end is in the outbox exactly once; jobs without a webhook leave nothing there."""
    for name in ("done", "called-off", "lost", "silent"):
        await queue.enqueue(new_job(name, webhook=None if name == "silent" else "https://example.org/hook"))
    await queue.cancel("called-off")
    done, lost, silent = [(await queue.lease("w"))[0] for _ in range(3)]
    for _ in range(2):
        await queue.finish(done.job_id, done.attempt, SUCCESS)
    await queue.finish(silent.job_id, silent.attempt, SUCCESS)
    await queue.finish(lost.job_id, lost.attempt, Outcome(state=State.FAILED, error_code="engine_error"))
    entries = [fields for _, fields in await redis_client.xrange(f"{PREFIX}:outbox")]
    assert entries == [
        {"job": "called-off", "tenant": "t", "state": "cancelled"},
        {"job": "done", "tenant": "t", "state": "succeeded"},
        {"job": "lost", "tenant": "t", "state": "failed"},
    ]
    record = await queue.get("done")
    assert record is not None
    assert record.webhook == "https://example.org/hook"
