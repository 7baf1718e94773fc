"""The command `rushes keys`: make, list and revoke the API keys of tenants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from engines.command_group import command_group
from server.keys.file import add_key, read_keys, remove_key
from server.settings import PREFIX

_VARIABLE = f"{PREFIX}API_KEYS_FILE"
_File = Annotated[Path | None, typer.Option(help="The keys file.", envvar=_VARIABLE)]


@command_group
def keys() -> None:
    """Make, list and revoke the API keys of tenants.

    A running server reads the file again when it has changed. Weights and quotas are edited in it.
    """


@keys.command()
def new(
    tenant: Annotated[str, typer.Argument(help="Whose key it is; a tenant that is new is added.")],
    *,
    file: _File = None,
    days: Annotated[int | None, typer.Option(help="Days until it expires; without: never.", min=1, max=36500)] = None,
) -> None:
    """Make a key, print it once, and keep its SHA-256 alone."""
    now = datetime.now(UTC).replace(microsecond=0)
    path = _required(file)
    key = add_key(path, tenant, created=now, expires=None if days is None else now + timedelta(days=days))
    typer.echo(f"{path} has the hash; the key itself is shown this once:", err=True)
    typer.echo(key)


@keys.command("list")
def show(*, file: _File = None) -> None:
    """Show tenants, terms and keys; the keys by their ids, which are their second part."""
    document = read_keys(_required(file))
    for name, tenant in document.tenants.items():
        bounds = (f"max_jobs {tenant.max_jobs or 'none'}", f"max_seconds {tenant.max_seconds or 'none'}")
        typer.echo(f"{name}: weight {tenant.weight:g}, {', '.join(bounds)}")
        for entry in tenant.keys:
            typer.echo(f"  {entry.id}  created {entry.created or 'unknown'}, expires {entry.expires or 'never'}")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: what stands after rk_ in it.")],
    *,
    file: _File = None,
) -> None:
    """Take a key out of the file, so that it opens nothing any more."""
    typer.echo(f"revoked a key of {remove_key(_required(file), key_id)}")


def _required(file: Path | None) -> Path:
    if file is None:
        raise ValueError(f"which keys file? Give --file, or set {_VARIABLE} as for the server")
    return file
