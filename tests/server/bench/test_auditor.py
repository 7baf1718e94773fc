"""The auditor finds each fault that is planted in what a run leaves behind, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from server.artifacts.filesystem import FilesystemArtifacts
from server.bench.auditor import Audit, Traces, audit
from server.queue.client import JobQueue
from server.queue.types import Lease, Outcome, ReleaseReason, State
from tests.server.queue.jobs import PREFIX, end_lease, new_job

pytestmark = pytest.mark.anyio

LINE = "2026-11-24T16:00:00.000Z INFO server.worker.batch_run job {} attempt {}: {}\n"


class Scene:
    """A queue, films, logs and receipts as a run leaves them."""

    def __init__(self, client: redis.Redis, queue: JobQueue, folder: Path) -> None:
        self.client = client
        self.queue = queue
        self.artifacts = FilesystemArtifacts(folder / "artifacts")
        self.log = folder / "logs" / "worker-1.log"
        self.log.parent.mkdir()
        self.log.touch()
        self.receipts = folder / "accepted.txt"
        self.receipts.touch()

    async def submit(self, job_id: str) -> None:
        """A job that is accepted."""
        await self.queue.enqueue(new_job(job_id))
        self.receipts.write_text(f"{self.receipts.read_text()}{job_id}\n")

    async def lease(self, worker_id: str = "w") -> Lease:
        """The lease of the one job that waits."""
        (lease,) = await self.queue.lease(worker_id)
        return lease

    def publish(self, lease: Lease) -> str:
        """The attempt's film, written."""
        self.artifacts.part_path(lease.job_id, lease.attempt).write_bytes(b"film")
        return self.artifacts.publish(lease.job_id, lease.attempt, "mp4")

    async def finish(self, lease: Lease) -> bool:
        """The attempt's film, brought to the queue as a supervisor does."""
        outcome = Outcome(state=State.SUCCEEDED, artifact=self.publish(lease))
        accepted = await self.queue.finish(lease.job_id, lease.attempt, outcome)
        self.say(lease, "succeeded " if accepted else "succeeded, refused as stale ")
        return accepted

    def say(self, lease: Lease, told: str) -> None:
        """A line of a worker's log."""
        with self.log.open("a") as file:
            file.write(LINE.format(lease.job_id, lease.attempt, told))

    async def audit(self) -> Audit:
        """What the auditor says."""
        traces = Traces(pool="test", receipts=self.receipts, artifacts=self.artifacts.root, logs=self.log.parent)
        return await audit(self.client, traces)


@pytest.fixture
async def scene(redis_client: redis.Redis, queue: JobQueue, tmp_path: Path) -> Scene:
    """A run of one job that ended well."""
    scene = Scene(redis_client, queue, tmp_path)
    await scene.submit("good")
    await scene.finish(await scene.lease())
    return scene


async def test_a_sound_run_has_no_faults(scene: Scene) -> None:
    """Made, cancelled, tried again, tried too often, and too late: all of it is as it should be."""
    await scene.submit("cancelled")
    await scene.queue.cancel("cancelled")
    await scene.submit("spent")
    for worker in ("w1", "w2"):
        lease = await scene.lease(worker)
        await scene.queue.release("spent", lease.attempt, ReleaseReason.CRASH, worker_id=worker)
    await scene.submit("late")
    zombie = await scene.lease()
    await end_lease(scene.client, "late")
    winner = await scene.lease()
    await scene.finish(winner)
    assert not await scene.finish(zombie)
    scene.artifacts.remove("late/1.mp4")
    audited = await scene.audit()
    assert (audited.lost, audited.duplicated, audited.leftovers) == ({}, {}, [])
    assert audited.states == {"succeeded": 2, "cancelled": 1, "failed": 1}
    assert audited.errors == {"worker_crashed_twice": 1}
    assert audited.refused == {("late", 1)}


async def _forgotten(scene: Scene) -> None:
    await scene.client.delete(f"{PREFIX}:job:bad")


async def _never_ended(scene: Scene) -> None:
    await scene.lease()


async def _without_an_end(scene: Scene) -> None:
    await scene.finish(await scene.lease())
    await scene.client.delete(f"{PREFIX}:events:bad")


async def _without_its_film(scene: Scene) -> None:
    await scene.finish(await scene.lease())
    scene.artifacts.remove("bad/1.mp4")


async def _with_an_empty_film(scene: Scene) -> None:
    await scene.finish(await scene.lease())
    (scene.artifacts.root / "bad" / "1.mp4").write_bytes(b"")


async def _failed_for_no_reason(scene: Scene) -> None:
    outcome = Outcome(state=State.FAILED, error_code="storage_error", error_message="no")
    await scene.queue.finish("bad", (await scene.lease()).attempt, outcome)


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_forgotten, "the queue knows nothing of it"),
        (_never_ended, "running in the end"),
        (_without_an_end, "its stream tells of no end"),
        (_without_its_film, "there is no film 1.mp4"),
        (_with_an_empty_film, "there is no film 1.mp4"),
        (_failed_for_no_reason, "failed with storage_error"),
    ],
)
async def test_a_lost_job_is_found(scene: Scene, plant: Callable[[Scene], Awaitable[None]], told: str) -> None:
    """However it was lost, it is told which and how, and no other."""
    await scene.submit("bad")
    await plant(scene)
    audited = await scene.audit()
    assert list(audited.lost) == ["bad"]
    assert told in audited.lost["bad"]
    assert audited.duplicated == {}


async def _ended_twice(scene: Scene) -> None:
    await scene.finish(await scene.lease())
    await scene.client.xadd(f"{PREFIX}:events:bad", {"type": "cancelled", "data": '{"attempt": 1}'})


async def _two_outcomes_counted(scene: Scene) -> None:
    zombie = await scene.lease()
    await end_lease(scene.client, "bad")
    await scene.finish(await scene.lease())
    scene.publish(zombie)
    scene.say(zombie, "succeeded ")


async def _made_by_another_attempt(scene: Scene) -> None:
    zombie = await scene.lease()
    await end_lease(scene.client, "bad")
    winner = await scene.lease()
    outcome = Outcome(state=State.SUCCEEDED, artifact=scene.publish(zombie))
    await scene.queue.finish("bad", winner.attempt, outcome)


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_ended_twice, "2 terminal events: succeeded, cancelled"),
        (_two_outcomes_counted, "attempts 1, 2 were each told"),
        (_made_by_another_attempt, "the film is attempt 1's, but attempt 2 held the job"),
    ],
)
async def test_a_doubled_outcome_is_found(scene: Scene, plant: Callable[[Scene], Awaitable[None]], told: str) -> None:
    """However it counted twice, it is told which and how, and no other."""
    await scene.submit("bad")
    await plant(scene)
    audited = await scene.audit()
    assert list(audited.duplicated) == ["bad"]
    assert told in audited.duplicated["bad"]
    assert audited.lost == {}


async def test_files_of_no_job_are_found(scene: Scene) -> None:
    """A killed attempt's part, a loser's film and a stranger's file are leftovers; the film that counts is none."""
    scene.artifacts.part_path("good", 2).write_bytes(b"half")
    (scene.artifacts.root / "good" / "3.mp4").write_bytes(b"film")
    (scene.artifacts.root / "stranger").write_bytes(b"?")
    assert (await scene.audit()).leftovers == ["good/2.part", "good/3.mp4", "stranger"]


async def test_a_worker_that_learns_of_its_lost_lease_is_counted(scene: Scene) -> None:
    """Who is told at a renewal is counted apart from those whose outcome was refused."""
    with scene.log.open("a") as file:
        file.write("2026-11-24T16:00:00.000Z WARNING server.worker.batch_run job good attempt 7 is no longer ours\n")
    audited = await scene.audit()
    assert (audited.turned_away, audited.refused) == ({("good", 7)}, frozenset())
