"""Workers as tests start, find and stop them, and the jobs that they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from engines.types import GenerationRequest, VideoSpec
from server.queue.client import JobQueue
from server.queue.request_document import to_document
from server.queue.types import JobEvent, JobRecord, NewJob
from server.tied_process import tied

ROOT = Path(__file__).resolve().parents[3]
SLEEPING = "tests.server.worker.sleeping_worker"
REAL = "server.worker"
PATIENCE_S = 60.0


class Worker:
    """One worker's processes."""

    def __init__(
        self, *, redis_url: str, artifacts: Path, module: str = SLEEPING, model: str = "none", **options: Any
    ) -> None:
        words = {"pool": "test", "artifacts": artifacts, "model": model} | options
        arguments = [text for name, value in words.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        self.process = subprocess.Popen(
            tied([sys.executable, "-m", module, *arguments], death_signal=signal.SIGKILL),
            cwd=ROOT,
            env=os.environ | {"REDIS_URL": redis_url, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def child(self) -> psutil.Process:
        """The engine's process."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def signal(self, number: signal.Signals) -> None:
        """Signal the supervisor alone."""
        self.process.send_signal(number)

    def until_logged(self, text: str) -> None:
        """Read the log up to a line that holds the text."""
        assert self.process.stderr is not None
        assert any(text in line for line in self.process.stderr), f"the worker ended without logging {text!r}"

    def wait(self) -> tuple[int, str]:
        """Exit code and log of a worker that ends by itself."""
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log

    def stop(self) -> None:
        """End it, whatever was done to it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        elif self.process.stderr is not None:
            self.process.stderr.close()


def film_job(job_id: str, prompt: str = "a red ball", *, steps: int = 8, size: int = 32, seed: int = 7) -> NewJob:
    """A job as admission would make it."""
    request = GenerationRequest(
        request_id=job_id,
        prompt=prompt,
        spec=VideoSpec(width=size, height=size, num_frames=9, fps=8),
        num_inference_steps=steps,
        guidance_scale=3.0,
        flow_shift=3.0,
        sampler="unipc",
        seed=seed,
    )
    shape = str(request.shape_key)
    return NewJob(job_id=job_id, tenant="t", priority=0, shape_key=shape, cost=1.0, request=to_document(request, "mp4"))


async def until_step(queue: JobQueue, job_id: str, *, attempt: int = 1) -> None:
    """Wait until the attempt has told of a step."""
    async for event in queue.events(job_id):
        if event.type == "running" and event.data["attempt"] >= attempt:
            attempt = 0
        if attempt == 0 and event.type == "progress" and event.data["step"] > 0:
            return
    raise AssertionError(f"job {job_id} ended before it was seen to run")


async def ended(queue: JobQueue, job_id: str) -> tuple[JobRecord, list[JobEvent]]:
    """Wait for the end of a job; its record and its events."""
    events = [event async for event in queue.events(job_id)]
    record = await queue.get(job_id)
    assert record is not None
    return record, events


def reasons(events: list[JobEvent]) -> list[str]:
    """Why attempts were given back."""
    return [event.data["reason"] for event in events if event.type == "retrying"]
