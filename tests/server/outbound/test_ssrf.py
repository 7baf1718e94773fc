"""Nothing that a client can write makes the server call an address that it must not call."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network

import pytest

from server.outbound.destination import OutboundPolicy
from server.outbound.errors import AddressRefusedError, OutboundError, UrlRefusedError
from server.outbound.fetcher import Fetcher
from tests.server.outbound.corpus import corpus
from tests.server.outbound.receiver import Receiver, listening, status

pytestmark = pytest.mark.anyio

# Two neighbours on loopback: one stands for the receiver that may be called, the other for what lies inside.
OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"
NAME = "http://receiver.example"


class NameServer:
    """Answers questions from a list, one answer after the other, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def hostile(host: str, port: int) -> Sequence[str]:
    """What spells an address in any way that the C library knows becomes that address, every other name loopback."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return [INSIDE]
    return [str(info[4][0]) for info in infos]


@pytest.fixture
async def inside(anyio_backend: str) -> AsyncIterator[Receiver]:
    """What must not be reached."""
    async with listening(INSIDE) as receiver:
        yield receiver


def policy_for(*receivers: Receiver, networks: Sequence[str] = ()) -> OutboundPolicy:
    """Nothing but the address stands between the fetcher and the receivers: their ports and http are allowed."""
    return OutboundPolicy(
        allow_http=True,
        ports=frozenset(receiver.port for receiver in receivers),
        allowed_networks=tuple(ip_network(text) for text in networks),
    )


async def test_no_url_leads_inside(inside: Receiver) -> None:
    """More than 300 URLs, each refused before anything is dialled; the listener on loopback never hears of it."""
    fetcher = Fetcher(policy_for(inside), resolve=hostile)
    urls = corpus(inside.port)
    assert len(urls) >= 300
    for url in urls:
        with pytest.raises((UrlRefusedError, AddressRefusedError)):
            await fetcher.post(url, headers={}, body=b"{}")
    assert inside.connections == 0


async def test_the_corpus_would_reach_an_unguarded_loopback(inside: Receiver) -> None:
    """The control: with loopback allowed the same URLs do arrive, so that the listener would have heard them."""
    fetcher = Fetcher(policy_for(inside, networks=["127.0.0.0/8"]), resolve=hostile, timeout_s=2.0)
    arrived = 0
    for url in corpus(inside.port):
        with contextlib.suppress(OutboundError):
            arrived += await fetcher.post(url, headers={}, body=b"{}") == 204
    assert arrived == inside.connections
    assert arrived >= 15


async def test_a_name_is_resolved_once_for_each_call(inside: Receiver) -> None:
    """A name server that changes its answer between the look and the call finds that there is no second question."""
    async with listening(OUTSIDE, port=inside.port) as outside:
        names = NameServer([OUTSIDE], [INSIDE])
        fetcher = Fetcher(policy_for(outside, networks=[OUTSIDE]), resolve=names)
        url = f"{NAME}:{outside.port}/"
        assert await fetcher.post(url, headers={}, body=b"{}") == 204
        assert (names.asked, len(outside.hits)) == (1, 1)
        with pytest.raises(AddressRefusedError, match="which is not to be called"):
            await fetcher.post(url, headers={}, body=b"{}")
        assert (names.asked, len(outside.hits)) == (2, 1)
    assert inside.connections == 0


@pytest.mark.parametrize(
    "answer", [[OUTSIDE, INSIDE], [INSIDE, OUTSIDE], [OUTSIDE, "::1"], [OUTSIDE, "::ffff:8.8.8.8"]]
)
async def test_one_forbidden_address_refuses_the_name(inside: Receiver, answer: list[str]) -> None:
    """A name with a good and a bad address is not called at all, whichever comes first."""
    async with listening(OUTSIDE, port=inside.port) as outside:
        fetcher = Fetcher(policy_for(outside, networks=[OUTSIDE]), resolve=NameServer(answer))
        with pytest.raises(AddressRefusedError):
            await fetcher.post(f"{NAME}:{outside.port}/", headers={}, body=b"{}")
        assert outside.connections == 0
    assert inside.connections == 0


async def test_a_failed_call_does_not_ask_again(inside: Receiver) -> None:
    """The only allowed address refuses the connection; that is no reason to look the name up anew."""
    names = NameServer([OUTSIDE], [INSIDE])
    fetcher = Fetcher(policy_for(inside, networks=[OUTSIDE]), resolve=names)
    with pytest.raises(OutboundError, match="cannot be reached"):
        await fetcher.post(f"{NAME}:{inside.port}/", headers={}, body=b"{}")
    assert names.asked == 1
    assert inside.connections == 0


@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 307, 308])
async def test_redirects_are_answers(inside: Receiver, code: int) -> None:
    """A receiver that sends us on is told no more; its status is the answer."""
    async with listening(OUTSIDE) as outside:
        outside.answer = status(code, f"Location: {inside.url()}", f"Refresh: 0; url={inside.url()}")
        fetcher = Fetcher(policy_for(outside, inside, networks=[OUTSIDE]))
        assert await fetcher.post(outside.url(), headers={}, body=b"{}") == code
    assert inside.connections == 0


async def test_proxies_of_the_environment_are_not_used(inside: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve names on its own and undo all of this."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, inside.url())
    async with listening(OUTSIDE) as outside:
        fetcher = Fetcher(policy_for(outside, networks=[OUTSIDE]))
        assert await fetcher.post(outside.url(), headers={}, body=b"{}") == 204
        assert len(outside.hits) == 1
    assert inside.connections == 0
