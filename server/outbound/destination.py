"""A URL taken apart, once: what was judged is what is dialled, since nothing reads the text a second time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from server.outbound.address import Address, Network, may_call
from server.outbound.errors import UrlRefusedError

MAX_URL_CHARS = 2048
_MAX_NAME_CHARS = 253
_HTTPS_PORTS = frozenset({443, 8443})
_HTTP_PORTS = frozenset({80, 8080})
# Narrower than the standard: each byte it leaves out is one that two parsers have been known to read differently.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?](?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*)?"
)
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
# Resolvers take names that end so for addresses: 127.1, 0x7f000001, 2130706433, 0177.0.0.1.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundPolicy:
    """What may be called. By default https on its usual ports, anywhere on the public internet.

    `allow_http` adds plain http and its ports; `allowed_networks` adds private networks; `ports` replaces the list.
    """

    allow_http: bool = False
    allowed_networks: tuple[Network, ...] = ()
    ports: frozenset[int] | None = None

    @property
    def called_ports(self) -> frozenset[int]:
        """The ports that may be called."""
        if self.ports is not None:
            return self.ports
        return _HTTPS_PORTS | _HTTP_PORTS if self.allow_http else _HTTPS_PORTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Scheme, host in lower case, port, and path with query; `address` is set when the host is one."""

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"


def destination_of(url: str, policy: OutboundPolicy) -> Destination:
    """The parts of a URL that may be called; UrlRefusedError for any other."""
    match = _URL.fullmatch(url) if len(url) <= MAX_URL_CHARS else None
    if match is None:
        # The text itself is not repeated: it may hold a password.
        raise UrlRefusedError(
            "the URL cannot be called; write https://host/path in plain ASCII of at most "
            f"{MAX_URL_CHARS} characters, without user name, fragment, spaces or backslashes"
        )
    scheme = _scheme(match["scheme"].lower(), policy)
    host, address = _host(match["host"].lower())
    if address is not None and not may_call(address, policy.allowed_networks):
        raise UrlRefusedError(f"the address {address} is not on the public internet; name a receiver that is")
    target = match["target"] or "/"
    return Destination(
        scheme=scheme,
        host=host,
        port=_port(match["port"], scheme, policy),
        target=target if target.startswith("/") else f"/{target}",
        address=address,
    )


def _scheme(scheme: str, policy: OutboundPolicy) -> str:
    if scheme == "https" or (scheme == "http" and policy.allow_http):
        return scheme
    raise UrlRefusedError(f"the URL's scheme is {scheme[:20]!r}; use https")


def _port(text: str | None, scheme: str, policy: OutboundPolicy) -> int:
    port = int(text) if text else 443 if scheme == "https" else 80
    if port not in policy.called_ports:
        ports = ", ".join(map(str, sorted(policy.called_ports)))
        raise UrlRefusedError(f"the URL's port is {port}; use one of {ports}")
    return port


def _host(text: str) -> tuple[str, Address | None]:
    try:
        if text.startswith("["):
            address = IPv6Address(text[1:-1])
            return str(address), address
        if _ENDS_IN_NUMBER.search(text):
            return text, IPv4Address(text)
    except AddressValueError:
        raise UrlRefusedError(
            f"the host {text[:80]!r} is no address in its usual form; write four decimal numbers, or a name"
        ) from None
    if len(text) > _MAX_NAME_CHARS or not _NAME.fullmatch(text):
        raise UrlRefusedError(
            f"the host {text[:80]!r} is not a name; write labels of letters, digits and hyphens with dots between"
        )
    return text, None
