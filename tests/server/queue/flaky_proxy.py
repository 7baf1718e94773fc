"""A proxy before a Redis that delays answers, and cuts some off after the server has done what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path


class FlakyProxy:
    """Listens on a unix socket; of the answers a share `cut` is thrown away with the connection."""

    def __init__(self, target: str, *, seed: int, cut: float = 0.0, delay_s: float = 0.0) -> None:
        self._target = target
        self._dice = random.Random(seed)
        self.cut, self.delay_s = cut, delay_s
        self.cuts = 0
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Serve one more connection."""
        connection = asyncio.create_task(self._serve(client, to_client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """End all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._target)
        forward = asyncio.create_task(_pump(client, to_server))
        try:
            while answer := await server.read(65536):
                await asyncio.sleep(self._dice.random() * self.delay_s)
                if self._dice.random() < self.cut:
                    self.cuts += 1
                    return
                to_client.write(answer)
                await to_client.drain()
        except OSError:
            return
        finally:
            forward.cancel()
            for writer in (to_client, to_server):
                writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@contextlib.asynccontextmanager
async def behind(proxy: FlakyProxy, socket: Path) -> AsyncIterator[str]:
    """The URL by which Redis is reached through the proxy."""
    server = await asyncio.start_unix_server(proxy.accept, socket)
    try:
        yield f"unix://{socket}"
    finally:
        server.close()
        await proxy.close()
