"""A keep-alive HTTP/1.1 client of few words, so that the bench measures the gateway and not its own load generator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from server.bench.chaos_plan import BenchError

_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; `headers` in lower case, `seconds` from the first byte sent to the last byte read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Connection:
    """One connection to the gateway, opened when it is first used and again when it was closed."""

    host: str
    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None)

    async def get(self, path: str) -> Answer:
        """GET `path`."""
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def post(self, path: str, document: Any) -> Answer:
        """POST a JSON document."""
        body = json.dumps(document).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return await self._ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def close(self) -> None:
        """Close the connection, if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None

    async def events(self, path: str, *, after: str | None) -> AsyncIterator[tuple[str, str]]:
        """(id, type) of the server-sent events of `path` behind `after`, as they come; use the connection for no more.

        Nothing at all when the server says that there is no more (204).
        """
        last = f"Last-Event-ID: {after}\r\n" if after else ""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{last}\r\n".encode())
            status, _ = await _head(reader)
            if status == 204:
                return
            if status != 200:
                raise BenchError(f"GET {path} answers {status}, not with events")
            async for event in _parsed(reader):
                yield event
        finally:
            writer.close()

    async def _ask(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST_S):
                writer.write(request)
                status, headers = await _head(reader)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            raise BenchError(f"the gateway did not answer: {type(error).__name__}") from error
        if headers.get("connection") == "close":
            await self.close()
        return Answer(status=status, headers=headers, body=body, seconds=time.perf_counter() - began)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}


async def _parsed(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """Ids and types of events; the chunks' own lines are told from the events' by their having no field name."""
    known = {"id": "", "event": ""}
    while line := await reader.readline():
        name, colon, value = line.decode().rstrip("\r\n").partition(": ")
        if colon and name in known:
            known[name] = value
        elif colon and name == "data":
            yield known["id"], known["event"]
