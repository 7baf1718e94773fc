"""The control's library: the queue's own without the fence, and never anything else."""

from __future__ import annotations

import difflib

import pytest
import redis.asyncio as redis

from server.bench.unfenced import UnfencedQueue, UnknownLibraryError, unfenced
from server.queue.client import JobQueue
from server.queue.library import LIBRARY_PATH
from tests.server.queue.jobs import SUCCESS, end_lease, new_job

LIBRARY = LIBRARY_PATH.read_text(encoding="utf-8")


def test_it_differs_in_the_comparison_of_attempts_alone() -> None:
    """Two lines are shorter by their comparison of the attempt; every other is as it was."""
    changes = [line for line in difflib.ndiff(LIBRARY.splitlines(), unfenced(LIBRARY).splitlines()) if line[0] in "+-"]
    removed, added = ([line[2:] for line in changes if line[0] == sign] for sign in "-+")
    assert len(removed) == len(added) == 2
    for before, after in zip(removed, added, strict=True):
        assert before.replace(" and tonumber(job[2]) == q.attempt", "") == after


@pytest.mark.parametrize("text", ["== q.attempt\n", "job[1] == 'running' and", "job[1] == q.state and"])
def test_a_library_written_otherwise_is_refused(text: str) -> None:
    """What the control would no longer take out, it tells, instead of proving nothing."""
    assert text in LIBRARY
    with pytest.raises(UnknownLibraryError, match=r"0 times, not once; write into server/bench/unfenced\.py"):
        unfenced(LIBRARY.replace(text, text.replace(" ", "  ", 1)))


def test_a_library_with_more_fences_is_refused() -> None:
    """A comparison that is there twice is not taken out of one place only."""
    with pytest.raises(UnknownLibraryError, match="2 times"):
        unfenced(LIBRARY + LIBRARY)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [JobQueue, UnfencedQueue])
async def test_only_the_fence_keeps_a_late_outcome_out(redis_client: redis.Redis, kind: type[JobQueue]) -> None:
    """An attempt whose lease went to another is refused by the queue, and counts without its fence."""
    queue = kind(redis_client, pool="test")
    await queue.install()
    await queue.enqueue(new_job("j"))
    for attempt in (1, 2):
        (lease,) = await queue.lease(f"worker-{attempt}")
        assert lease.attempt == attempt
        if attempt == 1:
            await end_lease(redis_client, "j")
    assert await queue.finish("j", 1, SUCCESS) is (kind is UnfencedQueue)
    assert await queue.finish("j", 2, SUCCESS)
    assert await queue.finish("j", 1, SUCCESS) is (kind is UnfencedQueue)
