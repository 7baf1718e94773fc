"""A real HTTP server on loopback that remembers what was posted to it and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

CERTIFICATE = Path(__file__).with_name("receiver.pem")  # of receiver.example, and good for nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One request; header names in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes


Answer: TypeAlias = Callable[[Hit, asyncio.StreamWriter], Awaitable[None]]


def status(code: int, *headers: str, body: bytes = b"") -> Answer:
    """Answer every request so."""

    async def answer(hit: Hit, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code} Told", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return answer


@dataclass(slots=True)
class Receiver:
    """What has come in so far; `answer` may be changed at any time, `connections` counts the silent ones as well."""

    port: int = 0
    host: str = "127.0.0.1"
    answer: Answer = field(default_factory=lambda: status(204))
    connections: int = 0
    hits: list[Hit] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/", *, scheme: str = "http") -> str:
        """A URL of this receiver."""
        return f"{scheme}://{self.host}:{self.port}{path}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection."""
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(":") for line in head[1:-2])
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                hit = Hit(target=head[0].split()[1], headers=headers, body=body)
                self.hits.append(hit)
                await self.answer(hit, writer)
                await writer.drain()
            finally:
                writer.close()
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(host: str = "127.0.0.1", *, port: int = 0, tls: bool = False) -> AsyncIterator[Receiver]:
    """A receiver on a free port, or on `port`; with `tls` as receiver.example."""
    receiver = Receiver(host=host)
    context = _tls(receiver) if tls else None
    server = await asyncio.start_server(receiver.accept, host, port, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)


def trusting_context() -> ssl.SSLContext:
    """A client's TLS context that trusts the receiver's certificate and no other."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


def _tls(receiver: Receiver) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _socket, name, _context: receiver.server_names.append(name)
    return context
