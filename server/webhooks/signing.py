"""Signatures of webhooks in the manner of the Standard Webhooks specification: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import sys
from collections.abc import Sequence

_PREFIX = "whsec_"
_FEWEST_BYTES, _MOST_BYTES = 24, 64
_NEW_BYTES = 32


def new_secret() -> str:
    """A secret nobody has had before, as both sides write it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def require_secret(text: str) -> str:
    """The text, if it can sign; ValueError, which does not repeat it, otherwise."""
    _key(text)
    return text


def signed_headers(signers: Sequence[str], *, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook; `timestamp` is in Unix seconds.

    One signature for each secret, so that a receiver may still have the old one while they are changed. ValueError
    when there is no secret, or one that cannot sign.
    """
    if not signers:
        raise ValueError("there is no secret to sign with; give the tenant one")
    content = b".".join((event_id.encode(), str(timestamp).encode(), body))
    digests = [hmac.digest(_key(signer), content, hashlib.sha256) for signer in signers]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(
            f"a webhook secret is {_PREFIX} and {_FEWEST_BYTES} to {_MOST_BYTES} bytes in base64; "
            "`python -m server.webhooks.signing` makes one"
        )
    return key


if __name__ == "__main__":
    sys.stdout.write(new_secret() + "\n")
