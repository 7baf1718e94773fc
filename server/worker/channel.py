"""The two ends of the socket between supervisor and child: asyncio for the one, blocking for the other."""

from __future__ import annotations

import asyncio
import socket
import threading

from server.worker.wire import HEADER_BYTES, Message, WireError, body_length, decode, encode


class SupervisorChannel:
    """The supervisor's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> SupervisorChannel:
        """A channel over a connected socket, which it then owns."""
        return cls(*await asyncio.open_connection(sock=end))

    async def send(self, message: Message) -> None:
        """Send a message; that the child is gone is told by `receive`, not here."""
        try:
            self._writer.write(encode(message))
            await self._writer.drain()
        except ConnectionError:
            return

    async def receive(self) -> Message | None:
        """The next message, or None when the child closed its end; WireError when a message is torn or not ours."""
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            body = await self._reader.readexactly(body_length(header))
        except asyncio.IncompleteReadError as error:
            # The header's read ends with no byte at all only between two messages.
            if error.partial or error.expected != HEADER_BYTES:
                raise WireError("the child died in the middle of a message") from error
            return None
        except ConnectionError:
            return None
        return decode(body)

    def close(self) -> None:
        """Close the end; the child sees it and dies."""
        self._writer.close()


class ChildChannel:
    """The child's end; `receive` is for one thread, `send` for any."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._file = end.makefile("rb")
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message whole; OSError when the supervisor is gone."""
        data = encode(message)
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> Message | None:
        """The next message, or None when the supervisor closed its end; WireError when it is torn or not ours."""
        header = self._file.read(HEADER_BYTES)
        if not header:
            return None
        if len(header) < HEADER_BYTES:
            raise WireError("the supervisor died in the middle of a header")
        length = body_length(header)
        body = self._file.read(length)
        if len(body) < length:
            raise WireError("the supervisor died in the middle of a message")
        return decode(body)

    def close(self) -> None:
        """Close the end."""
        self._file.close()
        self._socket.close()
