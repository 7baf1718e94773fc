"""The engine package on disk: a model folder with compiled parts, a manifest of everything in it, and a signature.

    PACKAGE/engine.json   what it is, of what, for which machine, how accurate and how quick; the hash of every file
    PACKAGE/engine.sig    an Ed25519 signature over the bytes of engine.json
    PACKAGE/compiled/...  what the backend loads
    PACKAGE/...           a diffusers folder and its rushes.json, with the package's limits

Torch-free. Nothing of a package is read by any library before `verify` has found it whole, trusted and fitting.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from engines.errors import PackageRefused
from engines.host import Host, misfits
from engines.signing import check_signature, trusted_keys

MANIFEST, SIGNATURE, COMPILED = "engine.json", "engine.sig", "compiled"
FORMAT = 1
# What compiled parts are called with and what lies beside them; counts up whenever an older package would not do.
INTERFACE = 2
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_CHUNK = 1 << 20

_STRICT = ConfigDict(extra="forbid", strict=True)
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file of a package by its content."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    sha256: _Hash
    size: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a package is. `recipe` is its whole content and `recipe_hash` its hash; `parent` is the weights' digest.

    `parts` maps what is compiled to its file under `compiled/`, `quantization` has the report on its layers where some
    are rounded, `step_cache` that on its steps where some are extrapolated; `costs` has measured seconds by shape and
    stage, `accuracy` the report of the comparison with the reference.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: int
    interface: int
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,99}$")]
    backend: str
    recipe: dict[str, Any]
    recipe_hash: _Hash
    parent_name: str
    parent: str
    host: Host
    parts: dict[str, str]
    quantization: dict[str, Any]
    step_cache: dict[str, Any]
    costs: list[dict[str, Any]]
    accuracy: dict[str, Any]
    built_at: str
    files: dict[str, PackagedFile]


_MANIFEST = TypeAdapter(Manifest)


def is_package(folder: Path) -> bool:
    """Whether a folder says of itself that it is an engine package."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """What a package says of itself, believed by nobody yet: for showing and comparing. PackageRefused if malformed."""
    return _parsed(_manifest_bytes(folder), folder.name)


def verify(folder: Path, *, host: Host, trusted: Sequence[Ed25519PublicKey] | None = None) -> Manifest:
    """The manifest of a package that may be loaded here.

    In this order: the signature over the manifest by a trusted key, its format, that it was built for such a machine,
    and then that every file is there, is what was signed, and that there is no other. PackageRefused names what is not
    so; no compiled file has been opened by anything but the hash function then.
    """
    content = _manifest_bytes(folder)
    try:
        signature = (folder / SIGNATURE).read_bytes()
    except OSError as error:
        raise PackageRefused(
            f"the engine package {folder.name} has no readable {SIGNATURE}: {error.strerror}"
        ) from None
    keys = trusted_keys() if trusted is None else trusted
    check_signature(content, signature, keys, what=f"the engine package {folder.name}")
    manifest = _parsed(content, folder.name)
    differences = misfits(manifest.host, host)
    if differences:
        raise PackageRefused(
            f"the engine package {folder.name} was built for another machine: {'; '.join(differences)}; build it here"
        )
    _check_files(folder, manifest)
    return manifest


def sign(folder: Path, manifest: Manifest, key: Ed25519PrivateKey) -> None:
    """Writes manifest and signature into a package folder that is not in use yet."""
    content = (json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n").encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(key.sign(content))


def listed_files(folder: Path) -> dict[str, PackagedFile]:
    """Every file under a package folder by its content, manifest and signature left out."""
    return {name: _content_of(folder / name) for name in _names(folder)}


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """The hash of a recipe's content."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise PackageRefused(f"{path} is larger than {_MAX_MANIFEST_BYTES} bytes, which no manifest is")
        return path.read_bytes()
    except OSError as error:
        raise PackageRefused(f"{folder} is no engine package: {MANIFEST} can't be read: {error.strerror}") from None


def _parsed(content: bytes, name: str) -> Manifest:
    try:
        found = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise PackageRefused(f"{MANIFEST} of {name} is not JSON: {error}") from None
    for what, ours in (("format", FORMAT), ("interface", INTERFACE)):
        theirs = found.get(what) if isinstance(found, dict) else None
        if theirs != ours:
            raise PackageRefused(
                f"the engine package {name} has {what} {theirs!r}, and this program reads {what} {ours}; build it anew"
            )
    try:
        return _MANIFEST.validate_json(content)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PackageRefused(f"{MANIFEST} of {name} is no manifest: {where}: {first['msg']}") from None


def _check_files(folder: Path, manifest: Manifest) -> None:
    found = set(_names(folder))
    missing, surplus = sorted(manifest.files.keys() - found), sorted(found - manifest.files.keys())
    if missing:
        raise PackageRefused(f"the engine package {folder.name} lacks {len(missing)} files, {missing[0]} for one")
    if surplus:
        raise PackageRefused(
            f"the engine package {folder.name} holds {len(surplus)} files that its manifest knows nothing of, "
            f"{surplus[0]} for one"
        )
    for name, signed in manifest.files.items():
        if _content_of(folder / name) != signed:
            raise PackageRefused(f"{name} of the engine package {folder.name} is not what was signed; build it anew")
    stray = sorted(p for p in manifest.parts.values() if f"{COMPILED}/{p}" not in manifest.files)
    if stray:
        raise PackageRefused(f"the engine package {folder.name} names {stray[0]} as a part and has no such file")


def _names(folder: Path) -> Iterator[str]:
    """The files under `folder` as posix paths; PackageRefused for a link, which may lead anywhere tomorrow."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (Path(root) / name).is_symlink():
                raise PackageRefused(f"{name} of the engine package {folder.name} is a link; packages hold files alone")
        for name in files:
            path = PurePosixPath(Path(root, name).relative_to(folder))
            if str(path) not in {MANIFEST, SIGNATURE}:
                yield str(path)


def _content_of(path: Path) -> PackagedFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return PackagedFile(sha256=digest.hexdigest(), size=size)
