"""Where one run takes place: a queue server, workers, films, logs and receipts of its own, all gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.artifacts.filesystem import FilesystemArtifacts
from server.bench.auditor import Traces
from server.bench.chaos_fleet import Fleet
from server.bench.chaos_plan import BenchError
from server.embedded_valkey import EmbeddedValkey
from server.queue.client import JobQueue
from server.queue.connection import connect
from server.state_folder import StateFolder

POOL = "chaos"
_PATIENCE_S = 60.0
_PAUSE_S = 0.05
# A busy machine pauses for longer than a production client should wait.
_REPLY_S = 5.0
_T = TypeVar("_T")


async def insist(action: Callable[[], Awaitable[_T]]) -> _T:
    """What the queue server answers, asked until it does; BenchError when it stays away for a minute."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    return await action()
                except (RedisConnectionError, RedisTimeoutError) as error:
                    last = error
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise BenchError(f"the queue server has not answered for {_PATIENCE_S:.0f} s: {last}") from None


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the check says yes."""
    while True:
        if await check():
            return
        await asyncio.sleep(_PAUSE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKind:
    """What the workers of a site are: the module that is run, its model, and the queue that they and we speak to."""

    module: str
    model: str = "sleeping"
    queue_type: type[JobQueue] = JobQueue


class Site:
    """One run's processes and folders; use `opened`."""

    def __init__(
        self, folder: Path, *, valkey: EmbeddedValkey, client: redis.Redis, kind: SiteKind, lease_s: float
    ) -> None:
        self.artifacts = FilesystemArtifacts(folder / "artifacts")
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.receipts = folder / "accepted.txt"
        self.receipts.touch()
        self.client = client
        self.lease_s = lease_s
        self.queue = kind.queue_type(client, pool=POOL, lease_s=lease_s)
        self.valkey = valkey
        options = ["--pool", POOL, "--model", kind.model, "--lease", str(lease_s)]
        self.fleet = Fleet(
            ["-m", kind.module, *options, "--artifacts", str(self.artifacts.root)],
            redis_url=valkey.url,
            logs=self.logs,
        )

    @property
    def traces(self) -> Traces:
        """What the auditor looks at."""
        return Traces(pool=POOL, receipts=self.receipts, artifacts=self.artifacts.root, logs=self.logs)

    async def kill_queue_server(self) -> None:
        """kill -9 of the queue server; returns when it is back, from its append-only file."""
        killed = self.valkey.pid
        if killed is None:
            raise BenchError("the queue server does not run and cannot be killed")
        os.kill(killed, signal.SIGKILL)

        async def is_new() -> bool:
            return self.valkey.pid not in (None, killed)

        await until(is_new)
        await insist(self.client.ping)

    async def server_facts(self) -> dict[str, str]:
        """Name and version of the queue server."""
        info: dict[str, Any] = await self.client.info("server")
        name = str(info.get("server_name", "redis"))
        return {"name": name, "version": str(info.get(f"{name}_version", info["redis_version"]))}


@contextlib.asynccontextmanager
async def queue_server(folder: Path) -> AsyncIterator[tuple[EmbeddedValkey, redis.Redis]]:
    """A Valkey with its data below the folder, and a patient client of it; both end with the block."""
    async with contextlib.AsyncExitStack() as stack:
        state = StateFolder(folder / "state")
        stack.callback(state.close)
        valkey = EmbeddedValkey(state)
        await valkey.start()
        stack.push_async_callback(valkey.stop)
        client = connect(valkey.url, reply_timeout_s=_REPLY_S)
        stack.push_async_callback(client.aclose)
        yield valkey, client


@contextlib.asynccontextmanager
async def opened(folder: Path, kind: SiteKind, *, lease_s: float) -> AsyncIterator[Site]:
    """A site in a new folder, without workers yet; its processes end with it."""
    async with contextlib.AsyncExitStack() as stack:
        valkey, client = await stack.enter_async_context(queue_server(folder))
        site = Site(folder, valkey=valkey, client=client, kind=kind, lease_s=lease_s)
        stack.push_async_callback(site.fleet.close)
        await site.queue.install()
        yield site
