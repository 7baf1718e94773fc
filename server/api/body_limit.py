"""Middleware that bounds how large a request body may be and how long it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import Problem

# A client that is still sending misses our answer when we hang up, so that a moderate excess is read and dropped first.
_DRAIN_BYTES = 8 * 1024 * 1024


class BodyLimit:
    """Raises Problem `body_too_large` or `request_timeout` out of `receive`, while the body streams in."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._refuse_declared(Headers(scope=scope))
        await self._app(scope, self._bounded(receive), send)

    def _refuse_declared(self, headers: Headers) -> None:
        declared = headers.get("content-length", "0")
        size = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        asks_first = headers.get("expect", "").lower() == "100-continue"
        if size > _DRAIN_BYTES or (asks_first and size > self._max_bytes):
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        received = 0
        complete = False
        deadline = asyncio.get_running_loop().time() + self._timeout_s

        async def bounded() -> Message:
            nonlocal received, complete
            while True:
                message = await receive() if complete else await self._in_time(receive, deadline)
                complete = not message.get("more_body", False)
                received += len(message.get("body", b""))
                if received <= self._max_bytes:
                    return message
                if complete or received > _DRAIN_BYTES:
                    raise self._too_large()

        return bounded

    async def _in_time(self, receive: Receive, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            raise Problem(
                "request_timeout",
                f"the body did not arrive within {self._timeout_s:g} s",
                headers={"Connection": "close"},
            ) from None

    def _too_large(self) -> Problem:
        return Problem(
            "body_too_large",
            f"the body is larger than {self._max_bytes} bytes",
            headers={"Connection": "close"},
            max_bytes=self._max_bytes,
        )
