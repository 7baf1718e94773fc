"""The keys file holds hashes alone, is written whole, and is refused in a sentence that gives nothing away."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.keys.file import KeysFileError, TenantTerms, add_key, digest_of, read_keys, remove_key

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HASH = "0" * 64
PASTED = "rk_00000000_somebody-pasted-the-key-itself"


def new_key(path: Path, tenant: str = "studio") -> str:
    return add_key(path, tenant, created=NOW, expires=None)


def write(path: Path, document: Any) -> None:
    path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_the_file_holds_no_key(path: Path) -> None:
    """What is kept of a key is its SHA-256, in a file that only its owner can read."""
    key = new_key(path)
    assert key.startswith("rk_")
    assert path.stat().st_mode & 0o777 == 0o600
    ((tenant, entry),) = read_keys(path).entries()
    assert (tenant, entry.sha256, entry.created) == ("studio", digest_of(key.encode()).hex(), NOW)
    secret = key.split("_", 2)[2]
    assert len(secret) >= 43  # 256 bits
    assert secret not in path.read_text()


def test_keys_are_never_alike(path: Path) -> None:
    """Each is drawn anew, with an id that it carries in itself."""
    keys = {new_key(path) for _ in range(20)}
    assert len(keys) == 20
    assert {entry.id for _, entry in read_keys(path).entries()} == {key.split("_")[1] for key in keys}


def test_terms_survive_every_change(path: Path) -> None:
    """What an operator wrote by hand stays when keys come and go."""
    write(path, {"tenants": {"studio": {"weight": 2, "max_jobs": 3, "max_seconds": 40.5, "keys": []}}})
    key = new_key(path)
    new_key(path, "other")
    assert remove_key(path, key.split("_")[1]) == "studio"
    document = read_keys(path)
    assert document.terms("studio") == TenantTerms(name="studio", weight=2.0, max_jobs=3, max_seconds=40.5)
    assert document.terms("other") == TenantTerms(name="other")
    assert [tenant for tenant, _ in document.entries()] == ["other"]


def test_a_key_that_is_not_there_cannot_be_removed(path: Path) -> None:
    """The mistake is told, and the file stays as it was."""
    new_key(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no key 'nope'"):
        remove_key(path, "nope")
    assert path.read_bytes() == before


def test_no_file_is_made_by_revoking(path: Path) -> None:
    """A mistyped name of a file is told rather than made."""
    with pytest.raises(KeysFileError, match="cannot be read: No such file"):
        remove_key(path, "nope")
    assert not path.exists()


def test_changes_at_once_are_all_kept(path: Path) -> None:
    """Whoever changes the file waits for the others."""
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda number: new_key(path, f"tenant-{number % 3}"), range(24)))
    assert {entry.sha256 for _, entry in read_keys(path).entries()} == {digest_of(k.encode()).hex() for k in keys}


def test_a_link_and_its_readers_are_kept(path: Path, tmp_path: Path) -> None:
    """A file that was opened to the server's group, or lies elsewhere, is so after a change as well."""
    new_key(path)
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    new_key(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(list(read_keys(path).entries())) == 2


@pytest.mark.parametrize("name", ["", "../x", "a b", "a:b", "-a", "a" * 65, "é"])
def test_a_name_that_is_none(path: Path, name: str) -> None:
    """A tenant's name becomes part of keys in Redis, so that it is letters, digits and little more."""
    with pytest.raises(ValueError, match="is not a name"):
        new_key(path, name)
    assert not path.exists()
    write(path, {"tenants": {name: {}}})
    with pytest.raises(KeysFileError, match="is not a name"):
        read_keys(path)


def key(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "sha256": HASH} | changes


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        '{"tenants": ',
        '{"tenants": {}, "tenants": {}}',
        '{"tenants": {"a": {"keys": []}, "a": {"keys": []}}}',
        '{"tenants": {"a": {"weight": NaN}}}',
        "[" * 100_000,
        "\x00",
        {"tenants": []},
        {"tenant": {}},
        {"tenants": {"a": {"weight": 0}}},
        {"tenants": {"a": {"weight": 1001}}},
        {"tenants": {"a": {"weight": "1"}}},
        {"tenants": {"a": {"max_jobs": 0}}},
        {"tenants": {"a": {"max_jobs": 1.5}}},
        {"tenants": {"a": {"max_seconds": 0}}},
        {"tenants": {"a": {"max_second": 1}}},
        {"tenants": {"a": {"keys": [{"id": "a"}]}}},
        {"tenants": {"a": {"keys": [key(sha256="A" * 64)]}}},
        {"tenants": {"a": {"keys": [key(sha256=PASTED)]}}},
        {"tenants": {"a": {"keys": [key(id=PASTED)]}}},
        {"tenants": {"a": {"keys": [PASTED]}}},
        {"tenants": {"a": {"keys": [key(expires="2027-01-01T00:00:00")]}}},
        {"tenants": {"a": {"keys": [key(expires="soon")]}}},
        {"tenants": {"a": {"keys": [key(), key(id="b")]}}},
        {"tenants": {"a": {"keys": [key()]}, "b": {"keys": [key(sha256="1" * 64)]}}},
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_a_file_that_cannot_be_used(path: Path, document: Any) -> None:
    """It is refused in one sentence that names the file, and nothing that stands in it where a key might."""
    write(path, document)
    with pytest.raises(KeysFileError) as caught:
        read_keys(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert PASTED not in sentence
    with pytest.raises(KeysFileError):
        new_key(path)
    assert path.read_text() == (document if isinstance(document, str) else json.dumps(document))


def test_a_file_of_latin_text(path: Path) -> None:
    """Bytes that are no UTF-8 are no document either."""
    path.write_bytes(b'{"tenants": {"caf\xe9": {}}}')
    with pytest.raises(KeysFileError, match="no JSON document"):
        read_keys(path)
