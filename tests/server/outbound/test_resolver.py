"""Looking names up without letting a hung name server hold anything else up."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from server.outbound.errors import UnreachableError
from server.outbound.resolver import SystemResolver

pytestmark = pytest.mark.anyio


async def test_the_system_is_asked() -> None:
    """Addresses come as text, each once."""
    found = await SystemResolver()("localhost", 443)
    assert set(found) & {"127.0.0.1", "::1"}
    assert len(found) == len(set(found))


async def test_no_address_is_an_error_of_the_system() -> None:
    """A name that cannot exist is told as the system tells it."""
    with pytest.raises(OSError):
        await SystemResolver()("nobody.invalid.", 443)


async def test_hung_questions_are_bounded_and_block_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four hang; the next is refused at once, threads for other work are free, and an answer frees a place."""
    hung = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        hung.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolve = SystemResolver()
    waiting = [asyncio.create_task(resolve("slow.example", 443)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(UnreachableError, match="64 names are being looked up already"):
        await resolve("slow.example", 443)
    assert await asyncio.to_thread(lambda: "free") == "free"
    waiting[0].cancel()  # as a call's time-out does; its thread hangs on
    with pytest.raises(UnreachableError):
        await resolve("slow.example", 443)
    hung.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert all(isinstance(outcome, socket.gaierror) for outcome in outcomes[1:])
    with pytest.raises(socket.gaierror):
        await resolve("slow.example", 443)
