"""Commands for whoever runs the Redis: the functions brought there, and a user that may do no more than call them."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import typer
from redis.exceptions import RedisError

from engines.command_group import command_group
from server.queue.access import acl_line
from server.queue.connection import connect
from server.queue.library import install_library

_PATIENT_S = 10.0


class QueueCommandError(ValueError):
    """A command could not do what it should; the message says why."""


@command_group
def queue() -> None:
    """Prepare a Redis for rushes: its functions, and a user without dangerous rights."""


@queue.command("install")
def install(
    redis_url: Annotated[
        str, typer.Option(envvar="REDIS_URL", help="The Redis, with an administrator's name and password in the URL.")
    ],
) -> None:
    """Load the queue's functions into a Redis; needed once a version where rushes' own user may not do it."""

    async def run() -> None:
        client = connect(redis_url, reply_timeout_s=_PATIENT_S)
        try:
            await install_library(client)
        except RedisError as error:
            raise QueueCommandError(f"the functions could not be loaded: {error}") from None
        finally:
            await client.aclose()

    asyncio.run(run())
    typer.echo("the queue's functions are there")


@queue.command("acl")
def acl(
    user: Annotated[str, typer.Option(help="The user's name.")] = "rushes",
    password_file: Annotated[
        Path | None, typer.Option(help="A file whose first line is the password.", show_default="a new password")
    ] = None,
) -> None:
    """Print the line for Redis's ACL file of a user that may use the queue and nothing else.

    A new password goes to standard error, so that the line alone can be redirected.
    """
    if password_file is not None:
        password = password_file.read_text(encoding="utf-8").partition("\n")[0].strip()
    else:
        password = secrets.token_urlsafe(32)
    line = acl_line(user, password)
    if password_file is None:
        typer.echo(f"password (put it into REDIS_URL=redis://{user}:PASSWORD@host:6379/0): {password}", err=True)
    typer.echo(line)
