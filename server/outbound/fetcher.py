"""The one place from which the server calls out: a name is resolved once, judged, and that very address is dialled."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import TypeAlias, cast

import httpcore

from server.outbound.address import Address, may_call
from server.outbound.destination import Destination, OutboundPolicy, destination_of
from server.outbound.errors import AddressRefusedError, UnreachableError
from server.outbound.resolver import SystemResolver

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_ANSWER_BYTES = 65_536
_CONNECT_TIMEOUT_S = 3.0  # of each address, so that a dead first one leaves time for the next
_READ_AWAY_S = 1.0
_MOST_DIALLED = 4
# `OSError` has TLS's errors, those of name servers and time-outs below it.
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)


class Fetcher:
    """Calls out under a policy; every call has a connection of its own.

    httpcore is driven directly: it follows no redirects, reads no proxies from the environment, keeps no cookies,
    decompresses nothing and bounds the head of an answer.
    """

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`timeout_s` bounds a whole call, name look-up included; `tls` is by default what the system trusts."""
        self.policy = policy
        self._resolve = resolve or SystemResolver()
        self._tls = tls or httpcore.default_ssl_context()
        self._timeout_s = timeout_s

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> int:
        """POST `body` and give the status of the answer, whatever it is; its body is thrown away.

        Raises `UrlRefusedError`, `AddressRefusedError` or `UnreachableError`.
        """
        destination = destination_of(url, self.policy)
        request = _post_request(destination, headers, body)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            return await self._exchange(destination, request, deadline)
        except TimeoutError as error:
            raise UnreachableError(f"{destination.host} did not answer within {self._timeout_s:g} s") from error
        except httpcore.ProtocolError as error:
            # What it did say stays out of the message: it may be an answer of something that was never meant to be met.
            raise UnreachableError(f"{destination.host} did not answer in HTTP") from error
        except _NETWORK_ERRORS as error:
            raise UnreachableError(f"{destination.host} cannot be reached: {_short(error)}") from error

    async def _exchange(self, destination: Destination, request: httpcore.Request, deadline: float) -> int:
        async with asyncio.timeout_at(deadline):
            addresses = await self._addresses(destination)
        async with contextlib.aclosing(_Pinned(addresses)) as network:
            connection = httpcore.AsyncHTTPConnection(
                origin=request.url.origin, ssl_context=self._tls, network_backend=network
            )
            async with asyncio.timeout_at(deadline):
                response = await connection.handle_async_request(request)
            await _read_away(response, deadline)
            return response.status

    async def _addresses(self, destination: Destination) -> list[Address]:
        """What to dial, best first. One forbidden address among several refuses them all: rebinding looks like that."""
        if destination.address is not None:
            return [destination.address]  # judged with its URL
        found = [ip_address(text) for text in await self._resolve(destination.host, destination.port)]
        for address in found:
            if not may_call(address, self.policy.allowed_networks):
                raise AddressRefusedError(f"{destination.host} leads to {address}, which is not to be called")
        if not found:
            raise UnreachableError(f"{destination.host} has no address")
        return found[:_MOST_DIALLED]


class _Pinned(httpcore.AsyncNetworkBackend):
    """Dials the given addresses, in their order, whatever host it is asked for; TLS and Host keep to the name."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._dialler = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - it was resolved already, and must not be a second time
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - httpcore's signature; the call has a deadline
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._addresses:
            try:
                self._stream = await self._dialler.connect_tcp(
                    str(address), port, _CONNECT_TIMEOUT_S, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return self._stream
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Close what was dialled: httpcore leaves the socket open when its TLS handshake is cancelled."""
        if self._stream is not None:
            await self._stream.aclose()


def _post_request(destination: Destination, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
    url = httpcore.URL(
        scheme=destination.scheme, host=destination.host, port=destination.port, target=destination.target
    )
    own = {
        "Host": destination.authority,
        "Content-Length": str(len(body)),
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    return httpcore.Request("POST", url, headers=list((dict(headers) | own).items()), content=body)


async def _read_away(response: httpcore.Response, deadline: float) -> None:
    """Let the receiver say its piece, up to a bound. Whatever goes wrong, the status has been told already."""
    now = asyncio.get_running_loop().time()
    with contextlib.suppress(*_NETWORK_ERRORS):
        async with asyncio.timeout_at(min(deadline, now + _READ_AWAY_S)):
            length = 0
            async for chunk in response.aiter_stream():
                length += len(chunk)
                if length > MAX_ANSWER_BYTES:
                    return


def _short(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
