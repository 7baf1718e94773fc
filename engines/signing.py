"""Ed25519 signatures over engine packages: an engine is machine code, so a machine runs those it built or trusts.

Torch-free. Keys are PEM files: the private one of who builds, and the public ones of whom a worker trusts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from engines.errors import PackageRefused
from engines.whole_writes import appearing_whole

KEY_VARIABLE = "RUSHES_ENGINE_KEY"
TRUSTED_VARIABLE = "RUSHES_ENGINE_TRUSTED"
_MAX_KEY_BYTES = 64 * 1024


def default_key_path() -> Path:
    """Where this user's private key is or will be: $RUSHES_ENGINE_KEY, else under the user's configuration."""
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "rushes" / "engine-key.pem"


def public_path(private: Path) -> Path:
    """Where the public half of a private key lies, to be handed to workers."""
    return private.with_suffix(".pub.pem")


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The private key at `path`; made there, with its public half beside it, when there is none.

    PackageRefused for a file that holds no Ed25519 key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        with appearing_whole(path) as part:
            part.chmod(0o600)
            part.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = _loaded(path, private=True)
    assert isinstance(key, Ed25519PrivateKey)
    beside = public_path(path)
    if not beside.exists():
        with appearing_whole(beside) as part:
            part.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return key


def trusted_keys(paths: Sequence[Path] | None = None) -> list[Ed25519PublicKey]:
    """The public keys whose engines this machine runs: at `paths`, else $RUSHES_ENGINE_TRUSTED, else the user's own.

    The variable lists PEM files with a colon between them. PackageRefused for a named file that holds no such key.
    """
    named = os.environ.get(TRUSTED_VARIABLE)
    if paths is None and named:
        paths = [Path(p).expanduser() for p in named.split(os.pathsep) if p]
    if paths is None:
        own = public_path(default_key_path())
        paths = [own] if own.exists() else []
    keys = [_loaded(path, private=False) for path in paths]
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]


def fingerprint(key: Ed25519PublicKey) -> str:
    """The key as text: its 32 bytes in hex."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def check_signature(content: bytes, signature: bytes, trusted: Sequence[Ed25519PublicKey], *, what: str) -> str:
    """The fingerprint of the trusted key that signed `content`; PackageRefused when none of them did."""
    if not trusted:
        raise PackageRefused(
            f"{what} is signed, but this machine trusts no key; name the builder's public key in {TRUSTED_VARIABLE}"
        )
    for key in trusted:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return fingerprint(key)
    raise PackageRefused(
        f"the signature of {what} is by none of the {len(trusted)} trusted keys, or the manifest was changed after it; "
        f"rebuild it here, or name its builder's public key in {TRUSTED_VARIABLE}"
    )


def _loaded(path: Path, *, private: bool) -> Ed25519PrivateKey | Ed25519PublicKey:
    kind = "private" if private else "public"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_BYTES)
        key = load_pem_private_key(content, password=None) if private else load_pem_public_key(content)
    except OSError as error:
        raise PackageRefused(f"the {kind} key {path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise PackageRefused(f"{path} holds no {kind} Ed25519 key in PEM")
    return key
