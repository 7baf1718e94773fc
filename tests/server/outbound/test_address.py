"""Which addresses may be called."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.outbound.address import may_call

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8"]
ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
NEVER = [
    "0.0.0.0", "169.254.169.254", "100.100.100.200",  # noqa: S104
    "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255",
    "::", "fe80::1", "fe80::1%lo", "ff02::1", "fd00:ec2::254", "fd20:ce::254", "::ffff:8.8.8.8",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_may_be_called(text: str) -> None:
    """Ordinary addresses of both kinds, and IPv4 behind NAT64."""
    assert may_call(ip_address(text))


@given(st.one_of(st.ip_addresses(), st.integers(0, 2**32 - 1).map(lambda n: IPv6Address((0x64FF9B << 96) | n))))
@example(IPv4Address("198.19.255.255"))
@example(IPv6Address("2001:1ff:ffff::"))
def test_nothing_that_the_standard_library_calls_private_may_be_called(address: IPv4Address | IPv6Address) -> None:
    """A second opinion on every range: what we call is global, and neither multicast, reserved nor link-local."""
    if may_call(address):
        assert address.is_global
        assert not (address.is_multicast or address.is_link_local or address.is_loopback or address.is_unspecified)


@pytest.mark.parametrize("text", ["10.1.2.3", "127.0.0.1", "100.64.0.1", "fd00::1", "::1"])
def test_an_allowed_network_may_be_called_and_no_other(text: str) -> None:
    """The operator's networks are exactly what is added."""
    address = ip_address(text)
    assert not may_call(address)
    assert may_call(address, (ip_network(text),))
    assert not may_call(address, (ip_network("10.1.2.4/32"), ip_network("fd00::2/128")))


@pytest.mark.parametrize("text", NEVER)
def test_some_addresses_are_never_called(text: str) -> None:
    """Metadata, link-local, multicast and disguises stay out even where everything is allowed."""
    assert not may_call(ip_address(text), ANYWHERE)
