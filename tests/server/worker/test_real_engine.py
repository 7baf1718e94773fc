"""A worker with the real engine on the tiny Wan: whatever interrupts a film, it arrives, the same to the bit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.artifacts.filesystem import FilesystemArtifacts
from server.queue.client import JobQueue
from server.queue.types import JobRecord, State
from tests.server.worker.harness import PATIENCE_S, REAL, Worker, ended, film_job, reasons, until_step

pytestmark = pytest.mark.anyio

# Long enough to be interrupted: a second or more.
LONG = {"steps": 150, "size": 64}


async def _film(queue: JobQueue, artifacts: Path, job_id: str) -> tuple[bytes, str]:
    """The finished film's file and the hash of its latents."""
    record, _ = await ended(queue, job_id)
    assert record.state is State.SUCCEEDED, record.error_message
    assert record.artifact is not None
    assert record.facts is not None
    return FilesystemArtifacts(artifacts).path_of(record.artifact).read_bytes(), record.facts["latents_sha256"]


async def test_an_interrupted_film_is_the_uninterrupted_one(
    queue: JobQueue, start_worker: Callable[..., Worker], artifacts: Path, patient_model: Path
) -> None:
    """With the child killed, then the next one frozen, the retried films equal the one made in peace."""
    worker = start_worker(module=REAL, model=str(patient_model), stall_floor=2)
    await queue.enqueue(film_job("peace", **LONG))
    expected = await _film(queue, artifacts, "peace")

    await queue.enqueue(film_job("killed", **LONG))
    await until_step(queue, "killed")
    worker.child.kill()
    assert await _film(queue, artifacts, "killed") == expected

    await queue.enqueue(film_job("frozen", **LONG))
    await until_step(queue, "frozen")
    worker.child.suspend()
    assert await _film(queue, artifacts, "frozen") == expected

    assert (await _told(queue, "killed"), await _told(queue, "frozen")) == (["crash"], ["stall"])
    await queue.enqueue(film_job("other-seed", seed=8, **LONG))
    assert await _film(queue, artifacts, "other-seed") != expected


async def test_a_lost_hosts_film_is_made_by_another(
    queue: JobQueue, start_worker: Callable[..., Worker], artifacts: Path, patient_model: Path
) -> None:
    """With supervisor and child killed at once, as when a host is lost, another worker makes the same film."""
    lost = start_worker(module=REAL, model=str(patient_model))
    await queue.enqueue(film_job("peace", **LONG))
    expected = await _film(queue, artifacts, "peace")
    await queue.enqueue(film_job("lost", **LONG))
    await until_step(queue, "lost")
    processes = [psutil.Process(lost.process.pid), lost.child]
    for process in processes:
        process.kill()
    await asyncio.to_thread(psutil.wait_procs, processes, PATIENCE_S)
    start_worker(module=REAL, model=str(patient_model))
    assert await _film(queue, artifacts, "lost") == expected
    assert await _told(queue, "lost") == ["lease_expired"]


async def test_a_cancelled_film_stops(
    queue: JobQueue, start_worker: Callable[..., Worker], artifacts: Path, patient_model: Path
) -> None:
    """Cancelling reaches the engine between two of its steps; the next film follows in the same child."""
    worker = start_worker(module=REAL, model=str(patient_model))
    await queue.enqueue(film_job("cancelled", steps=200, size=96))
    await until_step(queue, "cancelled")
    pid = worker.child.pid
    await queue.cancel("cancelled")
    record, _ = await ended(queue, "cancelled")
    assert (record.state, record.attempt) == (State.CANCELLED, 1)
    assert record.progress is not None
    assert record.progress.step < 200
    await queue.enqueue(film_job("next"))
    await _film(queue, artifacts, "next")
    assert worker.child.pid == pid


async def test_a_bad_request_fails_with_the_engines_sentence(
    queue: JobQueue, start_worker: Callable[..., Worker], patient_model: Path
) -> None:
    """What slipped through admission is refused by the engine, at the first attempt, in words fit for the client."""
    await queue.enqueue(film_job("j", size=40))
    start_worker(module=REAL, model=str(patient_model))
    record: JobRecord = (await ended(queue, "j"))[0]
    assert (record.state, record.error_code, record.attempt) == (State.FAILED, "invalid_request", 1)
    assert record.error_message is not None
    assert record.error_message.startswith("width is 40; it must be a multiple of 16")


async def _told(queue: JobQueue, job_id: str) -> list[str]:
    return reasons((await ended(queue, job_id))[1])
