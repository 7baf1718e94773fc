"""The user that rushes needs in Redis: it can do all that the queue does, and nothing dangerous."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import NoPermissionError

from server.queue.access import COMMANDS, acl_line
from server.queue.client import JobQueue
from server.queue.connection import connect
from server.queue.library import LIBRARY_PATH, LibraryMissingError
from server.queue.types import (
    Accepted,
    Ahead,
    Cancellation,
    Progress,
    ReleaseReason,
    Renewal,
    WorkerNotice,
    WorkerState,
)
from tests.server.queue.jobs import PREFIX, SUCCESS, new_job

pytestmark = pytest.mark.anyio

PASSWORD = "a password that a machine has chosen"


@pytest.fixture
async def limited(redis_url: str, redis_client: redis.Redis) -> AsyncIterator[redis.Redis]:
    """A client that is logged in as the user of the ACL line; the functions are there."""
    await JobQueue(redis_client, pool="test").install()
    _, name, *rules = acl_line("rushes", PASSWORD).split()
    await redis_client.execute_command("ACL", "SETUSER", name, "reset", *rules)
    client = connect(redis_url.replace("unix://", "unix://rushes@") + f"?password={PASSWORD}", reply_timeout_s=5.0)
    assert await client.ping()
    yield client
    await client.aclose()
    await redis_client.execute_command("ACL", "DELUSER", name)


async def test_the_user_can_do_all_that_the_queue_does(limited: redis.Redis) -> None:
    """Every method of the queue works, with a batch, a webhook, a quota, a cancellation and a lost lease."""
    queue = JobQueue(limited, pool="test", max_attempts=1)
    await queue.install()
    notice = WorkerNotice(worker_id="w", model="m", state=WorkerState.READY, max_batch=2, cost_model={})
    await queue.announce_worker(notice)
    assert await queue.workers() == [notice]
    await queue.set_weights({"t": 2.0})
    for name in "abcd":
        job = new_job(name, idempotency_key=name, body_hash="b", webhook="https://example.org", tenant_max_jobs=9)
        assert isinstance(await queue.enqueue(job), Accepted)
    assert await queue.ahead("d") == Ahead(jobs=3, seconds=3.0)
    one, two = await queue.lease("w", max_batch=2)
    assert await queue.renew(one.job_id, 1, Progress(stage="denoise", step=1, num_steps=2)) is Renewal.OK
    assert await queue.finish(one.job_id, 1, SUCCESS)
    assert await queue.release(two.job_id, 1, ReleaseReason.STALL, worker_id="w")
    assert await queue.cancel("c") is Cancellation.CANCELLED
    assert await queue.reap() == []
    assert (await queue.depth()).queued == 1
    assert [event.type async for event in queue.events("a")] == ["queued", "running", "progress", "succeeded"]
    assert await queue.wait_for_arrival("0-0") != "0-0"
    assert await limited.xlen(f"{PREFIX}:outbox") == 3
    await queue.retire_worker("w")


Attempt = Callable[[redis.Redis], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    "command",
    [
        "EVAL 'return 1' 0",
        "SCRIPT LOAD x",
        "FUNCTION LOAD x",
        "FUNCTION LIST",
        "FUNCTION FLUSH",
        "CONFIG GET *",
        "CONFIG SET dir /",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "FLUSHALL",
        "FLUSHDB",
        "SAVE",
        "SHUTDOWN",
        "MONITOR",
        "ACL LIST",
        "CLIENT LIST",
        "CLIENT KILL ID 1",
        "REPLICAOF localhost 1",
        "MIGRATE h 1 k 0 1",
        "RESTORE {q:test}:x 0 x",
        "MODULE LIST",
        "INFO",
        "SUBSCRIBE c",
        "PUBLISH c m",
        "GET session:another-application",
        "SET session:another-application x",
    ],
)
async def test_the_user_can_do_nothing_dangerous(limited: redis.Redis, command: str) -> None:
    """No code, no settings, no looking around, no other keys, no harm to the server."""
    with pytest.raises(NoPermissionError):
        await limited.execute_command(*command.split())


async def test_missing_functions_are_told_to_who_may_not_bring_them(
    limited: redis.Redis, redis_client: redis.Redis
) -> None:
    """At start, and in the middle of work: the sentence names the command that an administrator runs."""
    await redis_client.function_flush()
    queue = JobQueue(limited, pool="test")
    for attempt in (queue.install, lambda: queue.enqueue(new_job("a"))):
        with pytest.raises(LibraryMissingError, match="rushes queue install"):
            await attempt()
    older = "#!lua name=rushes\nredis.register_function('rushes_digest', function() return 'older' end)"
    await redis_client.function_load(older, replace=True)
    with pytest.raises(LibraryMissingError, match="holds version older"):
        await queue.install()


async def test_every_command_of_the_functions_is_allowed() -> None:
    """Functions run with the rights of who calls them, so that the list must hold all that they may ever call."""
    called = set(re.findall(r"call\('([A-Z]+)'", LIBRARY_PATH.read_text()))
    assert len(called) == 20
    assert {command.lower() for command in called} <= set(COMMANDS)


@pytest.mark.parametrize(("user", "password"), [("a b", PASSWORD), ("", PASSWORD), ("x >y", PASSWORD), ("u", "short")])
async def test_what_would_break_the_line_is_refused(user: str, password: str) -> None:
    """A name cannot smuggle rules in, and a password that people choose is not one."""
    with pytest.raises(ValueError, match=r"use 1 to 64|use 16 or more"):
        acl_line(user, password)
