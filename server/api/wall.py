"""The outermost middleware: nothing that goes wrong inside leaves as more than a code and a sentence."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import Problem

_log = logging.getLogger(__name__)
_QUIET_PATHS = frozenset({"/healthz", "/readyz"})


class Wall:
    """Answers what escapes the routes, logs one line a request, and refuses strange Host headers."""

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...]) -> None:
        """`hosts` are the names to answer to; empty means any."""
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            self._check_host(Headers(scope=scope))
            await self._app(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499  # the usual number in logs for a client that hung up; it sees nothing of it
        except Problem as problem:
            await exchange.answer(problem, receive)
        except Exception:  # noqa: BLE001 - one of the three walls: a fault of ours takes no process and tells no secret
            _log.exception("request %s failed", exchange.request_id)
            await exchange.answer(
                Problem("internal_error", f"the server failed; its log has more under {exchange.request_id}"), receive
            )
        finally:
            exchange.log()

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host")
        # Browsers always send it; a page of another site that had its own name point at us would send that name.
        if self._hosts and host is not None and _name(host) not in self._hosts:
            raise Problem("invalid_host", "the Host header is not a name of this server (RUSHES_ALLOWED_HOSTS)")


class _Exchange:
    """One request and what became of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = secrets.token_hex(8)
        self.status = 0
        self._scope = scope
        self._send = send
        self._began = time.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            # A cache on the way knows nothing of keys, and would give one tenant's answer to another.
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def answer(self, problem: Problem, receive: Receive) -> None:
        if self.status == 0:  # otherwise an answer has begun and can only be cut off
            await problem.response()(self._scope, receive, self.send)

    def log(self) -> None:
        path = self._scope["path"]
        level = logging.DEBUG if path in _QUIET_PATHS else logging.INFO
        milliseconds = (time.monotonic() - self._began) * 1000
        _log.log(
            level, "%s %s %s %d %.0f ms", self.request_id, self._scope["method"], path[:200], self.status, milliseconds
        )


def _name(host: str) -> str:
    """The host without its port, lower case, an IPv6 address without its brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
