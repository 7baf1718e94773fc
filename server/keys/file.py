"""The keys file: which tenants there are, on what terms they are served, and the hashes of their keys."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.whole_writes import appearing_whole
from server.queue.records import require_name

# What secret scanners look for, so that a key that was committed or posted somewhere is noticed.
KEY_PREFIX = "rk"
_KEY_BYTES = 32
_NEW_FILE_MODE = 0o600


class KeysFileError(ValueError):
    """The keys file cannot be used; the message names a place in it, but never what stands there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTerms:
    """On what terms a tenant is served: its share of the engines, and bounds on what it has waiting and running."""

    name: str
    weight: float = 1.0
    max_jobs: int | None = None
    max_seconds: float | None = None


_Name = Annotated[str, AfterValidator(lambda text: require_name(text, "the name"))]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class KeyEntry(_Entry):
    """One key, by the name that it carries in itself and by its SHA-256; it opens nothing from `expires` on."""

    id: str = Field(pattern=r"^[A-Za-z0-9-]{1,32}$")  # which no whole key is that was put here by mistake
    # A key is 256 random bits: guessing one is hopeless however quick the hash is, and a slow hash with a salt, which
    # a password needs, would only let strangers spend our processor.
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None


class TenantEntry(_Entry):
    """A tenant's terms and its keys; `max_seconds` is predicted engine time."""

    weight: float = Field(default=1.0, ge=0.001, le=1000, allow_inf_nan=False)
    max_jobs: int | None = Field(default=None, ge=1, le=1_000_000)
    max_seconds: float | None = Field(default=None, gt=0, le=1e8, allow_inf_nan=False)
    keys: tuple[KeyEntry, ...] = ()


class KeysDocument(_Entry):
    """The whole file."""

    tenants: dict[_Name, TenantEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_one_tenant_a_key(self) -> KeysDocument:
        entries = [entry for _, entry in self.entries()]
        for what, values in (("id", [e.id for e in entries]), ("sha256", [e.sha256 for e in entries])):
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {what}")
        return self

    def entries(self) -> Iterator[tuple[str, KeyEntry]]:
        """(tenant, key) of every key."""
        for name, tenant in self.tenants.items():
            for entry in tenant.keys:
                yield name, entry

    def terms(self, name: str) -> TenantTerms:
        """The terms of a tenant of this document."""
        tenant = self.tenants[name]
        return TenantTerms(name=name, weight=tenant.weight, max_jobs=tenant.max_jobs, max_seconds=tenant.max_seconds)


def digest_of(key: bytes) -> bytes:
    """What is kept of a key, and compared."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> KeysDocument:
    """The file's document; KeysFileError in one sentence when there is none."""
    try:
        content = path.read_bytes()
        # The second reader would take the last of two tenants of one name, and the first one's keys would be lost.
        json.loads(content, object_pairs_hook=_without_repeats)
        return KeysDocument.model_validate_json(content)
    except OSError as error:
        raise KeysFileError(f"the keys file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        rule = first["msg"].removeprefix("Value error, ")
        raise KeysFileError(f"the keys file {path} cannot be used: at {place}: {rule[0].lower()}{rule[1:]}") from None
    except (ValueError, RecursionError) as error:
        raise KeysFileError(f"the keys file {path} is no JSON document: {error}") from None


def add_key(path: Path, tenant: str, *, created: datetime, expires: datetime | None) -> str:
    """A new key of `tenant`, of which the file, made if need be, keeps the hash alone; the key, told nowhere else."""
    require_name(tenant, "tenant")
    key_id = secrets.token_hex(4)
    key = f"{KEY_PREFIX}_{key_id}_{secrets.token_urlsafe(_KEY_BYTES)}"
    entry = KeyEntry(id=key_id, sha256=digest_of(key.encode()).hex(), created=created, expires=expires)

    def added(document: KeysDocument) -> KeysDocument:
        old = document.tenants.get(tenant, TenantEntry())
        return _with_tenant(document, tenant, (*old.keys, entry))

    _change(path, added, may_be_new=True)
    return key


def remove_key(path: Path, key_id: str) -> str:
    """Take the key out of the file; its tenant, which keeps its terms. ValueError when there is no such key."""
    owner = ""

    def removed(document: KeysDocument) -> KeysDocument:
        nonlocal owner
        owners = [name for name, entry in document.entries() if entry.id == key_id]
        if not owners:
            raise ValueError(f"the keys file {path} has no key {key_id[:80]!r}; `rushes keys list` shows those it has")
        owner = owners[0]
        return _with_tenant(document, owner, tuple(e for e in document.tenants[owner].keys if e.id != key_id))

    _change(path, removed)
    return owner


def _with_tenant(document: KeysDocument, name: str, keys: tuple[KeyEntry, ...]) -> KeysDocument:
    tenant = document.tenants.get(name, TenantEntry()).model_copy(update={"keys": keys})
    return KeysDocument(tenants=document.tenants | {name: tenant})


def _change(path: Path, change: Callable[[KeysDocument], KeysDocument], *, may_be_new: bool = False) -> None:
    """Read, change and write the file, one process after another; a reader sees the old or the new one."""
    path = path.resolve()  # what a link points to is replaced, not the link
    with _locked(path.parent):
        old = path.stat() if path.exists() else None
        document = change(KeysDocument() if may_be_new and old is None else read_keys(path))
        content = document.model_dump_json(indent=2) + "\n"
        with appearing_whole(path) as partial:
            partial.chmod(_NEW_FILE_MODE)
            partial.write_text(content, encoding="utf-8")
            if old is not None:
                # The server may run as somebody else: who could read the file before still can.
                partial.chmod(old.st_mode & 0o777)
                if (old.st_uid, old.st_gid) != (os.getuid(), os.getgid()):
                    os.chown(partial, old.st_uid, old.st_gid)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The file itself is replaced by every change, so that a lock on it would hold nobody off.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return fields
