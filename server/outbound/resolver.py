"""Asking the system for a name's addresses without waiting for it longer than one's own time allows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from server.outbound.errors import UnreachableError

_MOST_AT_ONCE = 64


class SystemResolver:
    """`getaddrinfo` in threads of its own.

    A name server that never answers holds a thread for half a minute. Such threads take nobody else's place in a
    common pool, their number is bounded, and they do not keep the process from ending.
    """

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(_MOST_AT_ONCE)

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses, best first; OSError when there are none, UnreachableError when too many questions hang."""
        if not self._free.acquire(blocking=False):
            raise UnreachableError(f"{_MOST_AT_ONCE} names are being looked up already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        thread = threading.Thread(target=self._ask, args=(loop, answer, host, port), name="name look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads to be had
            self._free.release()
            raise UnreachableError("no thread can be started to look the name up") from error
        return await answer

    def _ask(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[str]], host: str, port: int) -> None:
        found: list[str] | OSError
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        except OSError as error:
            found = error
        finally:
            self._free.release()
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(_tell, answer, found)


def _tell(answer: asyncio.Future[list[str]], found: list[str] | OSError) -> None:
    if answer.done():
        return  # whoever asked has given up
    if isinstance(found, OSError):
        answer.set_exception(found)
    else:
        answer.set_result(found)
