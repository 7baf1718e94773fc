"""A cancellation reaches a worker that has no reason to renew its lease for a long time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from server.artifacts.filesystem import FilesystemArtifacts
from server.queue.client import JobQueue
from server.queue.types import Cancellation, State
from server.worker.batch_run import Pace
from server.worker.supervisor import Supervisor, WorkerConfig
from tests.server.worker.harness import ended, film_job

pytestmark = pytest.mark.anyio

_CHILD = [sys.executable, "-m", "tests.server.worker.sleeping_runner", "--model", "none"]
_NEVER_S = 1000.0


async def test_a_cancellation_does_not_wait_for_a_renewal(queue: JobQueue, artifacts: Path) -> None:
    """With renewals as good as never the job would be made to its end, twenty seconds away; it ends cancelled."""
    config = WorkerConfig(worker_id="w", model="none", pace=Pace(renew_s=_NEVER_S, progress_s=_NEVER_S))
    supervisor = Supervisor(config, queue=queue, artifacts=FilesystemArtifacts(artifacts), child_command=_CHILD)
    working = asyncio.create_task(supervisor.run())
    await queue.enqueue(film_job("j", steps=400))
    async for event in queue.events("j"):
        if event.type == "progress":  # the one renewal that there is, after which the duty sleeps
            break
    assert await queue.cancel("j") is Cancellation.REQUESTED
    record, _ = await ended(queue, "j")
    assert record.state is State.CANCELLED
    supervisor.drain()
    with contextlib.suppress(asyncio.CancelledError):
        await working
