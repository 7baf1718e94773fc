"""GET /jobs/{id}/events: a job's progress as server-sent events, resumable where a client lost the line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Response
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent

from server.api.errors import Problem, documented, field_problem
from server.api.services import Services, TheServices
from server.api.views import FoundJob
from server.queue.types import TERMINAL, JobEvent, JobRecord

_log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])
_RECONNECT_MS = 1000
_REDIS_PATIENCE_S = 60.0
_REDIS_PAUSE_S = 0.5
_CLOSING_GRACE_S = 1.0


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=documented("invalid_host", "not_found", "invalid_field", "too_many_streams", "queue_unavailable")
    | {
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Ends with the job.",
        },
        204: {"description": "The client has seen the last event; there is no reason to come back."},
    },
)
async def get_events(
    record: FoundJob, services: TheServices, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """Events `queued`, `running`, `progress`, `retrying`, `cancelling`, and last `succeeded`, `failed` or `cancelled`.

    Each carries JSON data and an id; send the last id seen as Last-Event-ID to get exactly the rest.
    """
    after = last_event_id or "0-0"
    try:
        first = services.queue.events(record.job_id, after=after)
    except ValueError as error:
        raise field_problem("Last-Event-ID", str(error)) from None
    if record.state in TERMINAL and await _is_empty(first):
        return Response(status_code=204)
    most = services.settings.max_event_streams
    if services.streams.count >= most:
        raise Problem("too_many_streams", f"{most} event streams are open already", headers={"Retry-After": "5"})
    closing = anyio.Event()
    return EventSourceResponse(
        _stream(record, services, after, closing),
        ping=services.settings.event_ping_seconds,
        sep="\n",
        shutdown_event=closing,
        shutdown_grace_period=_CLOSING_GRACE_S,
    )


async def _stream(
    record: JobRecord, services: Services, after: str, closing: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    """The events after `after` until `closing`; a queue that goes away for a moment delays them but loses none."""
    loop = asyncio.get_running_loop()
    last, lost_at = after, None
    services.streams.count += 1
    try:
        while True:
            try:
                async for event in _until(closing, services.queue.events(record.job_id, after=last)):
                    yield _sent(event, first=last == after)
                    last, lost_at = event.id, None
            except RedisError:
                lost_at = lost_at or loop.time()
                if loop.time() - lost_at > _REDIS_PATIENCE_S:
                    _log.warning("an event stream ends early, since the queue cannot be reached")
                    return
                await asyncio.sleep(_REDIS_PAUSE_S)
            else:
                return
    finally:
        services.streams.count -= 1


async def _until(closing: anyio.Event, events: AsyncIterator[JobEvent]) -> AsyncIterator[JobEvent]:
    """The events that come before the server closes; an end in order lets the client come back for the rest."""
    closed = asyncio.ensure_future(closing.wait())
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait({coming, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or (event := coming.result()) is None:
                return
            yield event
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        closed.cancel()
        coming.cancel()


def _sent(event: JobEvent, *, first: bool) -> ServerSentEvent:
    retry = _RECONNECT_MS if first else None
    return ServerSentEvent(event=event.type, id=event.id, data=json.dumps(event.data), retry=retry)


async def _is_empty(events: AsyncIterator[JobEvent]) -> bool:
    async for _ in events:
        return False
    return True
