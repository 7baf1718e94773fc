"""Which addresses may be called: the public internet's, and those of networks that the operator has named."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# Not even within an allowed network. Clouds hand their machines' credentials out at these, some of them inside ranges
# that operators have good reasons to allow; the rest is nobody's address, or another address in disguise.
_NEVER = _networks(
    "0.0.0.0/8",
    "100.100.100.200/32",  # metadata, Alibaba
    "168.63.129.16/32",  # wire server, Azure; it looks like a public address
    "169.254.0.0/16",  # link-local, metadata of most clouds
    "192.0.0.192/32",  # metadata, Oracle
    "224.0.0.0/4",  # multicast
    "255.255.255.255/32",
    "::/128",
    "::ffff:0:0/96",  # IPv4 in IPv6's clothes
    "fd00:ec2::/32",  # metadata, AWS
    "fd20:ce::254/128",  # metadata, Google
    "fe80::/10",
    "ff00::/8",
)
# IANA's special-purpose registries. Written out because the standard library's is_global depends on Python's patch
# level and calls multicast global.
_NOT_PUBLIC_V4 = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = _networks(
    "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "3fff::/20",
)
_NAT64 = IPv6Network("64:ff9b::/96")


def may_call(address: Address, allowed: tuple[Network, ...] = ()) -> bool:
    """Whether the address is public or within an `allowed` network; one behind NAT64 is judged as the IPv4 it is."""
    if address in _NAT64:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if _within(address, _NEVER):
        return False
    if _within(address, allowed):
        return True
    if isinstance(address, IPv4Address):
        return not _within(address, _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not _within(address, _NOT_PUBLIC_V6)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
