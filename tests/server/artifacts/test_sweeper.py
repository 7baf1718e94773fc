"""The sweeper: removes what nobody will serve, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis.asyncio as redis

from server.artifacts.filesystem import FilesystemArtifacts
from server.artifacts.sweeper import sweep
from server.queue.client import JobQueue
from server.queue.types import NewJob, Outcome, ReleaseReason, State

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> FilesystemArtifacts:
    """An empty store."""
    return FilesystemArtifacts(tmp_path / "artifacts")


async def _job(queue: JobQueue, job_id: str) -> None:
    job = NewJob(job_id=job_id, tenant="t", priority=0, shape_key="s", cost=1.0, request={})
    await queue.enqueue(job)
    await queue.lease("w")


def _write(store: FilesystemArtifacts, *names: str) -> None:
    for name in names:
        path = store.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"film")


def _left(store: FilesystemArtifacts) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}


async def _sweep(store: FilesystemArtifacts, queue: JobQueue) -> list[str]:
    return await sweep(store, queue, grace_s=60.0, now=lambda: time.time() + 3600)


async def test_the_winner_stays_and_losers_go(store: FilesystemArtifacts, queue: JobQueue) -> None:
    """Of a finished job only the film that `finish` named stays."""
    await _job(queue, "j")
    await queue.finish("j", 1, Outcome(state=State.SUCCEEDED, artifact="j/1.mp4"))
    _write(store, "j/1.mp4", "j/1.part", "j/2.mp4", "j/3.part", "j/.3.part.abc_1.partial")
    removed = await _sweep(store, queue)
    assert sorted(removed) == ["j/.3.part.abc_1.partial", "j/1.part", "j/2.mp4", "j/3.part"]
    assert _left(store) == {"j/1.mp4"}


async def test_the_present_attempt_is_left_alone(store: FilesystemArtifacts, queue: JobQueue) -> None:
    """Of a running job only earlier attempts' files go."""
    await _job(queue, "j")
    await queue.release("j", 1, ReleaseReason.CRASH, worker_id="w")
    await queue.lease("w")
    _write(store, "j/1.part", "j/2.part")
    await _sweep(store, queue)
    assert _left(store) == {"j/2.part"}


async def test_films_go_with_their_jobs(store: FilesystemArtifacts, queue: JobQueue, redis_client: redis.Redis) -> None:
    """When a job's record has expired, or never was, its folder goes; failed and cancelled jobs keep nothing."""
    await _job(queue, "expired")
    await queue.finish("expired", 1, Outcome(state=State.SUCCEEDED, artifact="expired/1.mp4"))
    await redis_client.delete("{q:test}:job:expired")  # as its time-out does
    await _job(queue, "failed")
    await queue.finish("failed", 1, Outcome(state=State.FAILED))
    _write(store, "expired/1.mp4", "stranger/1.mp4", "failed/1.mp4")
    await _sweep(store, queue)
    assert list(store.root.iterdir()) == []


async def test_young_files_and_strangers_stay(store: FilesystemArtifacts, queue: JobQueue) -> None:
    """What was touched within the grace stays, and so does what this store never made."""
    _write(store, "orphan/1.mp4", "orphan/notes.txt", "orphan/1.mp4.bak")
    assert await sweep(store, queue, grace_s=60.0) == []
    assert await _sweep(store, queue) == ["orphan/1.mp4"]
    assert _left(store) == {"orphan/notes.txt", "orphan/1.mp4.bak"}
