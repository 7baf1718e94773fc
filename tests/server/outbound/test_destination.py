"""Taking URLs apart: what is accepted, as what, and what the refusals say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.outbound.destination import OutboundPolicy, destination_of
from server.outbound.errors import UrlRefusedError

STRICT = OutboundPolicy()
WITH_HTTP = OutboundPolicy(allow_http=True)


@pytest.mark.parametrize(
    ("url", "scheme", "authority", "port", "target"),
    [
        ("https://Hooks.Example", "https", "hooks.example", 443, "/"),
        ("https://hooks.example:443/", "https", "hooks.example", 443, "/"),
        ("HTTPS://hooks.example:8443/a/b?c=d&e=%2F", "https", "hooks.example:8443", 8443, "/a/b?c=d&e=%2F"),
        ("https://hooks.example?token=1", "https", "hooks.example", 443, "/?token=1"),
        ("https://8.8.8.8/x", "https", "8.8.8.8", 443, "/x"),
        ("https://[2606:4700:0::1111]:8443/x", "https", "[2606:4700::1111]:8443", 8443, "/x"),
        ("https://my_host.example/@me/~a;b=(c)", "https", "my_host.example", 443, "/@me/~a;b=(c)"),
        ("http://hooks.example/", "http", "hooks.example", 80, "/"),
        ("http://hooks.example:8080/", "http", "hooks.example:8080", 8080, "/"),
    ],
)
def test_a_url_comes_apart_as_it_was_meant(url: str, scheme: str, authority: str, port: int, target: str) -> None:
    """Case, default ports, missing paths, addresses: one reading, and the Host header that goes with it."""
    destination = destination_of(url, WITH_HTTP)
    assert (destination.scheme, destination.authority) == (scheme, authority)
    assert (destination.port, destination.target) == (port, target)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hooks.example/", "scheme is 'http'; use https"),
        ("https://hooks.example:22/", "port is 22; use one of 443, 8443"),
        ("https://10.0.0.1/", "address 10.0.0.1 is not on the public internet"),
        ("https://[::ffff:8.8.8.8]/", "not on the public internet"),
        ("https://0x08080808/", "'0x08080808' is no address in its usual form"),
        ("https://hooks..example/", "'hooks..example' is not a name"),
        ("https://user:hunter2@hooks.example/", "without user name"),
        ("https://hooks.example/#hunter2", "without user name, fragment"),
        ("https://hooks.example/" + "hunter2" * 300, "at most 2048 characters"),
        ("https://bücher.example/", "plain ASCII"),
    ],
)
def test_a_refusal_says_what_to_write(url: str, told: str) -> None:
    """One sentence, and nothing in it that could be a password."""
    with pytest.raises(UrlRefusedError) as caught:
        destination_of(url, STRICT)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_ports_can_be_named() -> None:
    """An operator's list replaces the usual one."""
    policy = OutboundPolicy(ports=frozenset({9443}))
    assert destination_of("https://hooks.example:9443/", policy).port == 9443
    with pytest.raises(UrlRefusedError, match="use one of 9443"):
        destination_of("https://hooks.example/", policy)


@given(
    st.text(max_size=40), st.sampled_from(["", "http://", "https://", "https://a.example/", "https://[", "http://1."])
)
def test_any_text_is_a_destination_or_refused(text: str, start: str) -> None:
    """No text brings another error, and what is accepted fits on the wire as it stands."""
    try:
        destination = destination_of(start + text, WITH_HTTP)
    except UrlRefusedError:
        return
    for part in (destination.host, destination.target):
        assert part.isascii()
        assert part.isprintable()
        assert not set(part) & set(" \\#")
