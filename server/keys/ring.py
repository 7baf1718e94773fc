"""The keys in force: those of the keys file as it is now, or as it was when it last could be read."""

from __future__ import annotations

import hmac
import logging
import math
from dataclasses import dataclass
from pathlib import Path

from server.file_version import file_version
from server.keys.file import KeysDocument, KeysFileError, TenantTerms, digest_of, read_keys

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    digest: bytes
    expires: float
    terms: TenantTerms


class KeyRing:
    """Tells whose key a key is. The file is looked at before every answer, so that a revoked key opens nothing more."""

    def __init__(self, path: Path) -> None:
        """`KeysFileError` when the file cannot be used."""
        self._path = path
        self._seen = file_version(path)
        self._take(read_keys(path))

    def tenant_of(self, key: bytes, *, now: float) -> TenantTerms | None:
        """The terms of the tenant whose key this is at `now` (Unix seconds); None for any other text."""
        self._refresh()
        digest = digest_of(key)
        found = None
        # Every key is compared, each in constant time, so that the time taken tells nothing of which were near.
        for known in self._known:
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found.terms if found is not None and now < found.expires else None

    def weights(self) -> dict[str, float]:
        """Each tenant's share of the engines."""
        self._refresh()
        return self._weights

    def _refresh(self) -> None:
        seen = file_version(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._take(read_keys(self._path))
        except KeysFileError as error:
            # Half an edit must not lock everybody out.
            _log.warning("%s; the keys that were read before stay in force", error)
        else:
            _log.info("the keys file was read again: %d tenants, %d keys", len(self._weights), len(self._known))

    def _take(self, document: KeysDocument) -> None:
        self._known = [
            _Known(
                digest=bytes.fromhex(entry.sha256),
                expires=entry.expires.timestamp() if entry.expires else math.inf,
                terms=document.terms(name),
            )
            for name, entry in document.entries()
        ]
        self._weights = {name: tenant.weight for name, tenant in document.tenants.items()}
