"""Ended jobs in an outbox as the queue leaves them there, and senders that empty it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import redis.asyncio as redis

from server.outbound.destination import OutboundPolicy
from server.outbound.fetcher import Fetcher
from server.webhooks.outbox import Outbox
from server.webhooks.sender import WebhookSender

PREFIX = "{q:test}"
OUTBOX, RETRIES, DEAD = f"{PREFIX}:outbox", f"{PREFIX}:outbox:retries", f"{PREFIX}:outbox:dead"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE_S = 60.0
QUICK = (0.05, 0.05, 0.05)


async def end_job(client: redis.Redis, job_id: str, url: str, *, tenant: str = "t", state: str = "succeeded") -> str:
    """A job that ended with a webhook to tell; the id of its outbox entry."""
    await client.hset(f"{PREFIX}:job:{job_id}", mapping={"webhook": url, "state": state})
    return await client.xadd(OUTBOX, {"job": job_id, "state": state, "tenant": tenant})


def view_from(client: redis.Redis) -> Callable[[str], Any]:
    """A job's public view, as far as these tests keep jobs."""

    async def body_of(job_id: str) -> dict[str, Any] | None:
        state = await client.hget(f"{PREFIX}:job:{job_id}", "state")
        return None if state is None else {"id": job_id, "state": state, "prompt": "a red ball, private"}

    return body_of


def outbox_of(client: redis.Redis, **options: Any) -> Outbox:
    """The tests' outbox."""
    return Outbox(client, prefix=PREFIX, **options)


def local_fetcher(*ports: int, timeout_s: float = 10.0) -> Fetcher:
    """A fetcher that may call these ports of loopback in plain http."""
    networks = (ip_network("127.0.0.0/8"),)
    policy = OutboundPolicy(allow_http=True, allowed_networks=networks, ports=frozenset(ports))
    return Fetcher(policy, timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def sending(client: redis.Redis, fetcher: Fetcher, **options: Any) -> AsyncIterator[WebhookSender]:
    """A sender that runs meanwhile."""
    given: dict[str, Any] = {"body_of": view_from(client), "secrets_of": lambda _: (SECRET,), "delays_s": QUICK}
    outbox = options.pop("outbox", None) or outbox_of(client)
    sender = WebhookSender(outbox, fetcher, **(given | options))
    task = asyncio.create_task(sender.run())
    try:
        yield sender
        assert not task.done(), "the sender ended"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], Any]) -> None:
    """Wait for something that nobody announces; `true` may be a coroutine function."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = true()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.02)


async def until_empty(client: redis.Redis) -> None:
    """Wait until nothing is left to deliver."""

    async def is_empty() -> bool:
        return await client.xlen(OUTBOX) == 0

    await until(is_empty)


async def leftovers(client: redis.Redis) -> set[str]:
    """Keys besides the jobs and the fixed ones."""
    return {key async for key in client.scan_iter(f"{PREFIX}:*") if ":job:" not in key} - {OUTBOX, DEAD}
