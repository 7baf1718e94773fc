"""The file of tenants' webhook secrets: a JSON object, tenant to list of secrets, newest first."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from server.file_version import file_version
from server.queue.records import require_name
from server.webhooks.signing import require_secret

_log = logging.getLogger(__name__)
_Tenant = Annotated[str, AfterValidator(lambda text: require_name(text, "the tenant"))]
_Secret = Annotated[str, AfterValidator(require_secret)]
_CONTENT = TypeAdapter(dict[_Tenant, tuple[_Secret, ...]])


class SecretsFileError(ValueError):
    """The file cannot be used; the message names a place in it, but never what stands there."""


class SecretsFile:
    """The secrets in force: those of the file as it is now, or as it was when it last could be read."""

    def __init__(self, path: Path) -> None:
        """SecretsFileError when the file cannot be used."""
        self._path = path
        self._seen = file_version(path)
        self._secrets = _read(path)

    def secrets_of(self, tenant: str) -> tuple[str, ...]:
        """The tenant's secrets; none for a tenant that the file does not name."""
        seen = file_version(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._secrets = _read(self._path)
            except SecretsFileError as error:
                # Half an edit must not leave events unsigned.
                _log.warning("%s; the secrets that were read before stay in force", error)
        return self._secrets.get(tenant, ())


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        return _CONTENT.validate_json(path.read_bytes())
    except OSError as error:
        raise SecretsFileError(f"the webhook secrets file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        rule = first["msg"].removeprefix("Value error, ")
        raise SecretsFileError(
            f"the webhook secrets file {path} cannot be used: at {place}: {rule[0].lower()}{rule[1:]}"
        ) from None
