"""A call out over real sockets: what arrives, what comes back, and what a hostile receiver can make it cost."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network

import psutil
import pytest

from server.outbound.destination import OutboundPolicy
from server.outbound.errors import UnreachableError
from server.outbound.fetcher import MAX_ANSWER_BYTES, Fetcher
from tests.server.outbound.receiver import Answer, Hit, Receiver, listening, status, trusting_context

pytestmark = pytest.mark.anyio

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
BRIEF_S = 0.5


async def to_loopback(host: str, port: int) -> Sequence[str]:
    """The name server of a receiver on loopback."""
    return ["127.0.0.1"]


def fetcher_for(receiver: Receiver, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> Fetcher:
    """A fetcher that may call this receiver."""
    policy = OutboundPolicy(allow_http=True, allowed_networks=LOOPBACK, ports=frozenset({receiver.port}))
    return Fetcher(policy, resolve=to_loopback, tls=tls, timeout_s=timeout_s)


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    """A receiver that answers 204."""
    async with listening() as receiver:
        yield receiver


async def test_what_is_posted_arrives(receiver: Receiver) -> None:
    """Target, headers and body unchanged, the name as Host, and no header that invites a compressed answer."""
    url = f"http://receiver.example:{receiver.port}/in?a=%20b"
    body = bytes(range(256)) * 100
    assert await fetcher_for(receiver).post(url, headers={"webhook-id": "evt_1", "Host": "other"}, body=body) == 204
    (hit,) = receiver.hits
    assert (hit.target, hit.body) == ("/in?a=%20b", body)
    assert hit.headers == {
        "webhook-id": "evt_1",
        "host": f"receiver.example:{receiver.port}",
        "content-length": "25600",
        "accept-encoding": "identity",
        "connection": "close",
    }


async def test_tls_keeps_to_the_name_though_an_address_is_dialled() -> None:
    """SNI, certificate and Host are the name's."""
    async with listening(tls=True) as receiver:
        fetcher = fetcher_for(receiver, tls=trusting_context())
        assert await fetcher.post(f"https://receiver.example:{receiver.port}/", headers={}, body=b"{}") == 204
        assert receiver.server_names == ["receiver.example"]
        assert receiver.hits[0].headers["host"] == f"receiver.example:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "trusting"), [("other.example", True), ("127.0.0.1", True), ("receiver.example", False)]
)
async def test_a_wrong_certificate_is_refused(host: str, trusting: bool) -> None:
    """Another name, the bare address, or an issuer that nobody vouches for: not one byte of the request is sent."""
    async with listening(tls=True) as receiver:
        fetcher = fetcher_for(receiver, tls=trusting_context() if trusting else None)
        with pytest.raises(UnreachableError, match="certificate verify failed"):
            await fetcher.post(f"https://{host}:{receiver.port}/", headers={}, body=b"{}")
        assert receiver.hits == []


async def test_the_next_address_is_dialled_when_the_first_is_closed(receiver: Receiver) -> None:
    """Of several addresses of one answer the first that accepts is spoken to."""

    async def names(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.3", "::1", "127.0.0.1"]

    fetcher = Fetcher(fetcher_for(receiver).policy, resolve=names)
    assert await fetcher.post(f"http://receiver.example:{receiver.port}/", headers={}, body=b"{}") == 204


async def silence(hit: Hit, writer: asyncio.StreamWriter) -> None:
    """Accept and say nothing."""
    await asyncio.sleep(60)


async def dripping_head(hit: Hit, writer: asyncio.StreamWriter) -> None:
    """A head that never ends, a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless_information(hit: Hit, writer: asyncio.StreamWriter) -> None:
    """Nothing but 1xx."""
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
        await writer.drain()


@pytest.mark.parametrize("answer", [silence, dripping_head, endless_information])
async def test_a_slow_receiver_is_left(receiver: Receiver, answer: Answer) -> None:
    """However it stays busy without coming to a status, the call's time ends."""
    receiver.answer = answer
    with pytest.raises(UnreachableError, match="did not answer within"):
        await fetcher_for(receiver, timeout_s=BRIEF_S).post(receiver.url(), headers={}, body=b"{}")


async def test_a_slow_name_server_counts(receiver: Receiver) -> None:
    """Looking the name up is part of the call's time."""

    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return ["127.0.0.1"]

    fetcher = Fetcher(fetcher_for(receiver).policy, resolve=slow, timeout_s=BRIEF_S)
    with pytest.raises(UnreachableError, match="did not answer within"):
        await fetcher.post(f"http://receiver.example:{receiver.port}/", headers={}, body=b"{}")
    assert receiver.connections == 0


async def test_an_unfinished_handshake_leaves_no_socket(receiver: Receiver) -> None:
    """A receiver that takes the connection and never shakes hands holds it no longer than the call lasts."""
    fetcher = fetcher_for(receiver, timeout_s=BRIEF_S)
    process = psutil.Process()
    before = process.num_fds()
    for _ in range(3):
        with pytest.raises(UnreachableError, match="did not answer within"):
            await fetcher.post(f"https://receiver.example:{receiver.port}/", headers={}, body=b"{}")
    async with asyncio.timeout(10):
        while process.num_fds() > before:  # noqa: ASYNC110 - the receiver's side closes a moment later
            await asyncio.sleep(0.01)


async def endless_head(hit: Hit, writer: asyncio.StreamWriter) -> None:
    """Headers as fast as they are taken."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def endless_body(hit: Hit, writer: asyncio.StreamWriter) -> None:
    """A body as fast as it is taken."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def test_an_endless_head_is_no_answer(receiver: Receiver) -> None:
    """The head of an answer is bounded."""
    receiver.answer = endless_head
    with pytest.raises(UnreachableError, match="did not answer in HTTP"):
        await fetcher_for(receiver).post(receiver.url(), headers={}, body=b"{}")


@pytest.mark.parametrize(
    "answer", [endless_body, status(200, "Content-Encoding: gzip", body=gzip.compress(bytes(2**25)))]
)
async def test_a_body_is_thrown_away(receiver: Receiver, answer: Answer) -> None:
    """Endless or a bomb, it is neither kept nor unpacked, and the status stands."""
    receiver.answer = answer
    fetcher = fetcher_for(receiver)
    tracemalloc.start()
    assert await fetcher.post(receiver.url(), headers={}, body=b"{}") == 200
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MAX_ANSWER_BYTES


async def test_a_status_counts_though_the_body_never_ends(receiver: Receiver) -> None:
    """Who has said 200 has said it; a body that drips afterwards changes nothing."""

    async def dripping_body(hit: Hit, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await silence(hit, writer)

    receiver.answer = dripping_body
    assert await fetcher_for(receiver, timeout_s=BRIEF_S).post(receiver.url(), headers={}, body=b"{}") == 200


async def test_what_is_not_http_is_not_repeated(receiver: Receiver) -> None:
    """The greeting of another service gets into no message."""

    async def greeting(hit: Hit, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR secret-banner\r\n\r\n")

    receiver.answer = greeting
    with pytest.raises(UnreachableError) as caught:
        await fetcher_for(receiver).post(receiver.url("/?token=hunter2"), headers={}, body=b"{}")
    assert str(caught.value) == "127.0.0.1 did not answer in HTTP"
