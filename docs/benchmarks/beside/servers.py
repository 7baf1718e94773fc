"""The two servers under test: how each is started and stopped, asked for a film, looked at and told to forget one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import httpx

from beside.film import FPS, FRAMES, GUIDANCE, NEGATIVE_PROMPT, PROMPT, SIDE
from beside.processes import Launched, find_below, pin

ROOT = Path(__file__).resolve().parents[3]
_READY_S = 300.0


class Seen(Enum):
    """What a client is told of a job."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator tells a server who knows his clients' patience; each has a setting for one of them only.

    `waiting_s` bounds the work that may wait, in predicted seconds; `deadline_s` is the longest from request to film.
    """

    waiting_s: float | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To a POST: the job's id when it was accepted, else the status and Retry-After; `seconds` is how long it took."""

    status: int
    seconds: float
    job_id: str | None = None
    retry_after: float | None = None


class Server(ABC):
    """One server on loopback; `state` is kept over stops and starts."""

    name: ClassVar[str]
    jobs_path: ClassVar[str]
    create_path: ClassVar[str]
    ready_path: ClassVar[str]

    def __init__(self, *, work: Path, port: int) -> None:
        self.work = work
        self.state = work / f"{self.name}-state"
        self.log = work / f"{self.name}.log"
        self._port = port
        self._launched: Launched | None = None
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False)

    @abstractmethod
    def command(self, model: Path, limits: Limits) -> list[str]:
        """The command line that serves `model`."""

    @abstractmethod
    def environment(self, limits: Limits) -> Mapping[str, str]:
        """Its environment, on top of ours."""

    @abstractmethod
    def engine_pid(self) -> int:
        """The process that computes."""

    @abstractmethod
    def body(self, *, steps: int, seed: int) -> dict[str, Any]:
        """The request for a film."""

    @abstractmethod
    def seen(self, document: Mapping[str, Any]) -> Seen:
        """What a job's document says."""

    @abstractmethod
    def film_path(self, job_id: str) -> str:
        """Where the film is."""

    @property
    def pid(self) -> int:
        """The first process."""
        assert self._launched is not None
        return self._launched.pid

    async def start(self, model: Path, limits: Limits = Limits()) -> float:
        """Start and wait until it says that it is ready; the seconds that took."""
        begun = time.perf_counter()
        # One thread for arithmetic each: on two busy cores two threads can be many times slower than one.
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **self.environment(limits)}
        command = self.command(model, limits)
        self._launched = await Launched.start(command, cwd=ROOT, environment=environment, log=self.log)
        await self.until_ready()
        pin_to_engines_core(self.engine_pid())
        return time.perf_counter() - begun

    async def until_ready(self) -> None:
        """Wait for the server's own word."""
        assert self._launched is not None
        async with asyncio.timeout(_READY_S):
            while not await self.is_ready():
                if not self._launched.alive:
                    raise RuntimeError(f"{self.name} ended while it started; {self.log} says why")
                await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        """Whether the server says that it can make films."""
        try:
            return (await self.client.get(self.ready_path, timeout=5.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def stop(self) -> None:
        """End it by SIGTERM."""
        if self._launched is not None:
            await self._launched.stop()
            self._launched = None

    async def close(self) -> None:
        """End it and let the connections go."""
        await self.stop()
        await self.client.aclose()

    async def submit(self, *, steps: int, seed: int) -> Answer:
        """Ask for a film; whatever comes instead of an acceptance is an answer too."""
        begun = time.perf_counter()
        try:
            response = await self.client.post(self.create_path, json=self.body(steps=steps, seed=seed))
        except httpx.HTTPError:
            return Answer(status=0, seconds=time.perf_counter() - begun)
        seconds = time.perf_counter() - begun
        if response.is_success:
            return Answer(status=response.status_code, seconds=seconds, job_id=response.json()["id"])
        after = response.headers.get("Retry-After")
        return Answer(status=response.status_code, seconds=seconds, retry_after=None if after is None else float(after))

    async def must_submit(self, *, steps: int, seed: int) -> str:
        """Ask for a film of which we know that it is accepted; its id."""
        answer = await self.submit(steps=steps, seed=seed)
        if answer.job_id is None:
            raise RuntimeError(f"{self.name} refused a film with {answer.status}; {self.log} may say why")
        return answer.job_id

    async def document(self, job_id: str) -> dict[str, Any] | None:
        """The job as the server tells it now; None when it knows none of that id."""
        response = await self.client.get(f"{self.jobs_path}/{job_id}")
        return None if response.status_code == 404 else response.raise_for_status().json()

    async def look(self, job_id: str) -> Seen:
        """What the server tells of a job now."""
        document = await self.document(job_id)
        return Seen.UNKNOWN if document is None else self.seen(document)

    async def wait(self, job_id: str, *, every_s: float, at_most_s: float = 240.0) -> Seen:
        """Look until the job is over, gone, or `at_most_s` have passed; the server may be away meanwhile."""
        seen, end = Seen.OPEN, time.monotonic() + at_most_s
        while seen is Seen.OPEN and time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                seen = await self.look(job_id)
            if seen is Seen.OPEN:
                await asyncio.sleep(every_s)
        return seen

    async def remove(self, job_id: str) -> float:
        """DELETE the job; the seconds until the answer."""
        begun = time.perf_counter()
        await self.client.delete(f"{self.jobs_path}/{job_id}")
        return time.perf_counter() - begun

    async def has_film(self, job_id: str) -> bool:
        """Whether the film can be downloaded, and is one."""
        try:
            response = await self.client.get(self.film_path(job_id))
        except httpx.HTTPError:
            return False
        return response.is_success and response.content[4:8] == b"ftyp"


class Rushes(Server):
    """Ours, out of this very checkout."""

    name = "rushes"
    create_path = "/generate"
    jobs_path = "/jobs"
    ready_path = "/readyz"

    def command(self, model: Path, limits: Limits) -> list[str]:
        del limits  # they are in the environment
        serve = [sys.executable, "-m", "server.cli", "serve", "--model", str(model)]
        return [*serve, "--port", str(self._port), "--state-dir", str(self.state / model.name)]

    def environment(self, limits: Limits) -> Mapping[str, str]:
        return {} if limits.waiting_s is None else {"RUSHES_QUEUE_MAX_SECONDS": f"{limits.waiting_s:.3f}"}

    def engine_pid(self) -> int:
        return find_below(self.pid, "server.worker.runner")

    def gateway_pid(self) -> int:
        """The process that answers HTTP."""
        return find_below(self.pid, "server.api")

    def body(self, *, steps: int, seed: int) -> dict[str, Any]:
        return {**_common_body(steps, seed), "format": "mp4"}

    def seen(self, document: Mapping[str, Any]) -> Seen:
        told = {"succeeded": Seen.DONE, "failed": Seen.FAILED, "cancelled": Seen.CANCELLED}
        return told.get(document["state"], Seen.OPEN)

    def film_path(self, job_id: str) -> str:
        return f"/jobs/{job_id}/video"


class Sglang(Server):
    """SGLang-Diffusion's, installed below the work folder."""

    name = "sglang"
    create_path = "/v1/videos"
    jobs_path = "/v1/videos"
    ready_path = "/health"

    def command(self, model: Path, limits: Limits) -> list[str]:
        module = "sglang.multimodal_gen.runtime.entrypoints.cli.main"
        # Its kernels need ops that only its own CPU build has; `diffusers` is the back end that runs as published.
        options: dict[str, object] = {
            "--backend": "diffusers",
            "--model-path": model,
            "--model-id": "Wan2.1-T2V-1.3B-Diffusers",
            "--dit-precision": "fp32",
            "--num-gpus": 1,
            "--host": "127.0.0.1",
            "--port": self._port,
            "--warmup-mode": "off",
            "--output-path": self.state,
        }
        if limits.deadline_s is not None:
            options["--scheduler-rpc-timeout"] = math.ceil(limits.deadline_s)  # it takes whole seconds
        words = [str(word) for pair in options.items() for word in pair]
        return [str(sglang_python(self.work)), "-m", module, "serve", *words, "--sleep-on-idle"]

    def environment(self, limits: Limits) -> Mapping[str, str]:
        del limits  # they are on the command line
        return sglang_environment(self.work)

    def engine_pid(self) -> int:
        return find_below(self.pid, "sgl_diffusion::scheduler")

    def body(self, *, steps: int, seed: int) -> dict[str, Any]:
        return {**_common_body(steps, seed), "generator_device": "cpu"}

    def seen(self, document: Mapping[str, Any]) -> Seen:
        return {"completed": Seen.DONE, "failed": Seen.FAILED}.get(document["status"], Seen.OPEN)

    def film_path(self, job_id: str) -> str:
        return f"/v1/videos/{job_id}/content"


def pin_to_engines_core(pid: int) -> None:
    """Let an engine compute on the last core: all on the same one, whatever else this machine has to do."""
    pin(pid, max(os.sched_getaffinity(0)))


def sglang_python(work: Path) -> Path:
    """The interpreter of the environment that SGLang-Diffusion is installed in."""
    return work / "sglang-venv" / "bin" / "python"


def sglang_environment(work: Path) -> dict[str, str]:
    """Where its source lies, and a home of its own for its caches."""
    home = work / "sglang-home"
    home.mkdir(exist_ok=True)
    # Its own virtual environment must not see ours.
    return {"PYTHONPATH": os.fspath(work / "sglang-source"), "HOME": os.fspath(home), "VIRTUAL_ENV": ""}


def _common_body(steps: int, seed: int) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE_PROMPT,
        "width": SIDE,
        "height": SIDE,
        "num_frames": FRAMES,
        "fps": FPS,
        "num_inference_steps": steps,
        "guidance_scale": GUIDANCE,
        "seed": seed,
    }
