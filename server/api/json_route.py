"""Routes whose body is read by our own strict reader before the framework sees it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.api.auth import authenticate
from server.api.errors import Problem
from server.api.services import services_of
from server.api.strict_json import parse_json


class _StrictRequest(Request):
    """A request whose `json` is the strictly parsed body."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class JsonRoute(APIRoute):
    """Refuses a stranger, and a body that is not `application/json` in UTF-8; parses the rest with `parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            # The router asks for the key too, but the framework reads a body before it asks a router anything.
            authenticate(request, await services_of(request))
            _require_json(request)
            strict = _StrictRequest(request.scope, request.receive)
            strict.parsed = parse_json(await strict.body())
            return await handle(strict)

        return handle_strictly


def _require_json(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != "application/json":
        seen = repr(media_type.strip()[:64]) if media_type else "missing"
        raise Problem("unsupported_media_type", f"the Content-Type is {seen}; send application/json")
    charset = parameters.strip().lower().replace('"', "").replace(" ", "")
    if charset not in ("", "charset=utf-8", "charset=utf8"):
        raise Problem("unsupported_media_type", f"the Content-Type has {charset[:64]!r}; send UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "the body is compressed (Content-Encoding); send it plain")
