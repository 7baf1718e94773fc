"""Following a job's event stream from any point to its terminal event."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis

from server.queue.types import TERMINAL, JobEvent

_STREAM_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_LARGEST_PART = 2**64 - 1
_LONGEST_BLOCK_MS = 400
_TERMINAL_TYPES = frozenset(state.value for state in TERMINAL)


def _block_ms(client: redis.Redis) -> int:
    # At most half the reply time-out, so that a dead server is still told from a quiet stream.
    timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout") or 1.0
    return min(_LONGEST_BLOCK_MS, int(timeout_s * 500))


def require_stream_id(text: str) -> str:
    """The text, if it is a stream id; ValueError otherwise."""
    match = _STREAM_ID.fullmatch(text)
    if match is None or any(int(part or 0) > _LARGEST_PART for part in match.groups()):
        raise ValueError(f"{text[:64]!r} is not an event id; use one that the stream gave, such as 1700000000000-0")
    return text


async def follow(client: redis.Redis, *, job_key: str, events_key: str, after: str) -> AsyncIterator[JobEvent]:
    """The events after `after`; ends with the terminal event, or at once when there is nothing left to come."""
    last = after
    over = await _is_over(client, job_key)
    while True:
        # A job that is over has all its events already, so that one read without waiting tells the rest.
        answer: Any = await client.xread({events_key: last}, count=100, block=None if over else _block_ms(client))
        entries = answer[0][1] if answer else []
        for last, fields in entries:
            yield JobEvent(id=last, type=fields["type"], data=json.loads(fields["data"]))
            if fields["type"] in _TERMINAL_TYPES:
                return
        if not entries:
            if over:
                return
            over = await _is_over(client, job_key)


async def newest_after(client: redis.Redis, key: str, after: str) -> str:
    """Wait a moment for entries after `after`; the newest one's id, or `after` when none came."""
    answer: Any = await client.xread({key: after}, block=_block_ms(client))
    return answer[0][1][-1][0] if answer else after


async def jobs_after(client: redis.Redis, key: str, after: str) -> tuple[str, list[str]]:
    """The same, with the jobs that the entries name."""
    answer: Any = await client.xread({key: after}, block=_block_ms(client))
    entries = answer[0][1] if answer else []
    return (entries[-1][0] if entries else after), [fields["job"] for _, fields in entries]


async def _is_over(client: redis.Redis, job_key: str) -> bool:
    state = await client.hget(job_key, "state")
    return state is None or state in _TERMINAL_TYPES
