"""Which keys open what, and when a change of their file counts."""

from __future__ import annotations

import hmac
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.keys.file import KeysFileError, add_key, remove_key
from server.keys.ring import KeyRing

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
T = NOW.timestamp()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def new_key(path: Path, tenant: str, expires: datetime | None = None) -> bytes:
    return add_key(path, tenant, created=NOW, expires=expires).encode()


def name_of(ring: KeyRing, key: bytes, now: float = T) -> str | None:
    terms = ring.tenant_of(key, now=now)
    return terms and terms.name


def test_a_key_is_its_tenants(path: Path) -> None:
    """Each key opens its own tenant's door, and a tenant may have several."""
    keys = [(new_key(path, tenant), tenant) for tenant in ("a", "b", "a", "c")]
    ring = KeyRing(path)
    assert [name_of(ring, key) for key, _ in keys] == [tenant for _, tenant in keys]


def test_what_is_no_key(path: Path) -> None:
    """Anything but a key, a part of one or its hash included, opens nothing."""
    key = new_key(path, "a")
    digest = json.loads(path.read_text())["tenants"]["a"]["keys"][0]["sha256"]
    ring = KeyRing(path)
    for text in (b"", b"rk_", key[:-1], key + b"\n", key.upper(), b" " + key, digest.encode(), bytes.fromhex(digest)):
        assert name_of(ring, text) is None


def test_a_key_expires(path: Path) -> None:
    """It opens until its time, and not from then on."""
    key = new_key(path, "a", NOW + timedelta(days=1))
    ring = KeyRing(path)
    assert name_of(ring, key, T + 86399.9) == "a"
    assert name_of(ring, key, T + 86400) is None


def test_every_key_is_compared_whatever_was_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key, the last, an expired one and none at all take the same comparisons."""
    first, _, last = (new_key(path, "a") for _ in range(3))
    expired = new_key(path, "b", NOW - timedelta(days=1))
    ring = KeyRing(path)
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    seen = []
    for key in (first, last, expired, b"unknown", b"", b"\xff" * 9000):
        ring.tenant_of(key, now=T)
        seen.append(list(compared))
        compared.clear()
    assert len(seen[0]) == 4
    assert all(order == seen[0] for order in seen)


def test_a_change_counts_at_once(path: Path) -> None:
    """A key that was added opens with the next request, and one that was revoked opens none."""
    old = new_key(path, "a")
    ring = KeyRing(path)
    new = new_key(path, "b")
    assert name_of(ring, new) == "b"
    remove_key(path, old.decode().split("_")[1])
    assert (name_of(ring, old), name_of(ring, new)) == (None, "b")


@pytest.mark.parametrize("trouble", ["cut off", "gone", "a folder", "pasted"])
def test_a_broken_file_changes_nothing(path: Path, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    """The keys in force stay, one sentence is logged however often it is asked, and a whole file counts again."""
    key = new_key(path, "a")
    ring = KeyRing(path)
    whole = path.read_bytes()
    path.unlink()
    match trouble:
        case "cut off":
            path.write_bytes(whole[: len(whole) // 2])
        case "a folder":
            path.mkdir()
        case "pasted":
            path.write_bytes(b'{"tenants": {"a": {"keys": ["' + key + b'"]}}}')
    with caplog.at_level(logging.INFO):
        assert [name_of(ring, key) for _ in range(5)] == ["a"] * 5
    assert len(caplog.records) == 1
    assert "stay in force" in caplog.text
    assert str(path) in caplog.text
    assert key.decode() not in caplog.text
    if trouble == "a folder":
        path.rmdir()
    path.write_text('{"tenants": {}}')
    assert name_of(ring, key) is None


def test_a_broken_file_lets_no_server_start(path: Path) -> None:
    """There are no keys in force yet, so that nobody could be let in or kept out rightly."""
    with pytest.raises(KeysFileError, match="cannot be read"):
        KeyRing(path)
    path.write_text("{")
    with pytest.raises(KeysFileError, match="no JSON document"):
        KeyRing(path)


def test_terms_and_weights_come_with_the_file(path: Path) -> None:
    """Quotas and shares are those of the file as it is now."""
    key = new_key(path, "a")
    ring = KeyRing(path)
    assert ring.weights() == {"a": 1.0}
    document = json.loads(path.read_text())
    document["tenants"]["a"] |= {"weight": 2.5, "max_jobs": 4, "max_seconds": 9}
    document["tenants"]["b"] = {"weight": 0.5}
    path.write_text(json.dumps(document))
    assert ring.weights() == {"a": 2.5, "b": 0.5}
    terms = ring.tenant_of(key, now=T)
    assert terms is not None
    assert (terms.max_jobs, terms.max_seconds) == (4, 9.0)
