"""A sender in a process of its own, to be killed: `python -m tests.server.webhooks.sender_process REDIS_URL PORT`."""

from __future__ import annotations

import asyncio
import sys

from server.queue.connection import connect
from server.webhooks.sender import WebhookSender
from tests.server.webhooks.events import QUICK, SECRET, local_fetcher, outbox_of, view_from

ABANDONED_AFTER_S = 1.0


async def send(redis_url: str, port: int) -> None:
    """Send for ever, to one port of loopback."""
    client = connect(redis_url, reply_timeout_s=5.0)
    outbox = outbox_of(client, abandoned_after_s=ABANDONED_AFTER_S)
    sender = WebhookSender(
        outbox, local_fetcher(port), body_of=view_from(client), secrets_of=lambda _: (SECRET,), delays_s=QUICK
    )
    await sender.run()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2])))
