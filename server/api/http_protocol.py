"""HTTP/1.1 connections that wait only so long for a request, and that refuse a malformed one as everything is refused.

The server's own class waits for ever for the rest of a request's head, so that connections which say little or nothing
could use up the process's descriptors; and it answers what is no HTTP in plain text.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.api.errors import Problem

_log = logging.getLogger(__name__)


class HttpProtocol(H11Protocol):
    """One connection. The head of a request must be whole within `head_timeout_s` of its first byte."""

    head_timeout_s = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Called where h11 finds a request malformed; its reason is more than `msg`, which is always the same."""
        # What may follow is the client's own bytes, and those can be a secret that has no place in a log.
        reason = str(sys.exception() or msg).partition(": bytearray(")[0]
        self._refuse(Problem("invalid_http", f"the request is not well-formed HTTP/1.1: {reason}"))

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        begun, _ = self.conn.trailing_data
        if begun:
            self._refuse(Problem("request_timeout", f"the request did not arrive within {self.head_timeout_s:g} s"))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        _log.info("a connection is closed: %s", problem.detail)
        # Otherwise an answer has begun, or is complete, and there is no place for another.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = problem.response()
            headers = [*answer.raw_headers, (b"connection", b"close")]
            phrase = HTTPStatus(answer.status_code).phrase.encode()
            for event in (
                h11.Response(status_code=answer.status_code, headers=headers, reason=phrase),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
