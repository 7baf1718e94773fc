"""Where gateways are measured: a queue server, some gateways on one port, sleeping workers; all gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio as redis

from server.bench.chaos_fleet import Fleet
from server.bench.chaos_plan import BenchError
from server.bench.chaos_site import queue_server
from server.bench.http_client import Connection
from server.pool import pool_of
from server.queue.client import JobQueue
from server.queue.types import WorkerState
from server.settings import Settings
from server.tied_process import tied

MODEL = "diorama"
# The smallest film that the model makes; a bench of the server has no use for more.
FILM = {"prompt": "a red ball rolls", "width": 32, "height": 32, "num_frames": 1, "num_inference_steps": 1, "seed": 1}
_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySite:
    """Running gateways (`pids`) on one port, their queue, and the fleet of workers behind it."""

    host: str
    port: int
    pids: tuple[int, ...]
    queue: JobQueue
    client: redis.Redis
    fleet: Fleet

    @property
    def prefix(self) -> str:
        """What the queue's keys begin with."""
        return self.queue.prefix

    def connection(self) -> Connection:
        """A new connection to whichever gateway takes it."""
        return Connection(self.host, self.port)

    async def start_workers(self, count: int) -> None:
        """Start workers and wait until all take jobs."""
        for _ in range(count):
            await self.fleet.start()
        async with _patience(f"not all of {count} workers are ready"):
            while sum(n.state is WorkerState.READY for n in await self.queue.workers()) < count:
                self.fleet.require_alive()
                await asyncio.sleep(0.05)

    def memory_bytes(self) -> int:
        """Resident memory of all gateways."""
        return sum(resident_bytes(pid) for pid in self.pids)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has gone."""
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


@contextlib.asynccontextmanager
async def gateways(
    folder: Path, count: int, *, engine: str = "sleeping", **settings: float
) -> AsyncIterator[GatewaySite]:
    """`count` gateways with `settings` on top of the default ones; `engine` is `sleeping[:STEP_SECONDS]` or `real`."""
    await asyncio.to_thread(folder.mkdir)
    async with contextlib.AsyncExitStack() as stack:
        valkey, client = await stack.enter_async_context(queue_server(folder))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        host, port = listener.getsockname()
        given = Settings(redis_url=valkey.url, state_dir=folder / "state", log_level="error", **settings)  # type: ignore[arg-type]
        pids = [await stack.enter_async_context(_gateway(given, listener)) for _ in range(count)]
        fleet = Fleet(_worker(engine, given), redis_url=valkey.url, logs=folder)
        stack.push_async_callback(fleet.close)
        queue = JobQueue(client, pool=pool_of(MODEL), max_queued_jobs=1_000_000, max_queued_seconds=1e8)
        await queue.install()
        site = GatewaySite(host=host, port=port, pids=tuple(pids), queue=queue, client=client, fleet=fleet)
        await _until_alive(site.connection())
        yield site


def _worker(engine: str, settings: Settings) -> list[str]:
    pool = pool_of(MODEL)
    module, model = ("server.worker", MODEL) if engine == "real" else ("server.bench.sleeping_worker", engine)
    return ["-m", module, "--pool", pool, "--model", model, "--artifacts", str(settings.artifacts_dir / pool)]


@contextlib.asynccontextmanager
async def _gateway(settings: Settings, listener: socket.socket) -> AsyncIterator[int]:
    command = [sys.executable, "-m", "server.api", "--fd", str(listener.fileno())]
    process = await asyncio.create_subprocess_exec(
        *tied(command, death_signal=signal.SIGKILL),
        env=os.environ | settings.to_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(listener.fileno(),),
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _until_alive(connection: Connection) -> None:
    async with _patience("no gateway answers"):
        while True:
            with contextlib.suppress(OSError, BenchError):
                if (await connection.get("/healthz")).status == 200:
                    return await connection.close()
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _patience(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_STARTS_WITHIN_S):
            yield
    except TimeoutError:
        raise BenchError(f"{what} after {_STARTS_WITHIN_S:.0f} s") from None
