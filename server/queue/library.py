"""The library of functions inside Redis: its text, and bringing it there or making sure that somebody has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import NoPermissionError, ResponseError

LIBRARY_PATH = Path(__file__).with_name("functions.lua")


class LibraryMissingError(ResponseError):
    """Redis lacks this version's functions and this user may not bring them; the message says who can."""


def library_text() -> str:
    """What is loaded: the functions, and one more that tells which text they are of."""
    code = LIBRARY_PATH.read_text(encoding="utf-8")
    return f"{code}\nregister('digest', function() return '{_digest(code)}' end, 'no-writes')\n"


async def install_library(client: redis.Redis) -> None:
    """Load the library, or replace another, unless the server has this very text.

    A user who may only call functions finds out whether the right ones are there; LibraryMissingError when not.
    """
    code = library_text()
    try:
        # Asking for the text as well tells an older library of the same name from this one.
        listed: Any = await client.function_list(library="rushes", withcode=True)
        if not any(code in library for library in listed):
            await client.function_load(code, replace=True)
    except NoPermissionError:
        await _require_library(client)


async def _require_library(client: redis.Redis) -> None:
    wanted = _digest(LIBRARY_PATH.read_text(encoding="utf-8"))
    try:
        found = await client.execute_command("FCALL", "rushes_digest", 0)
    except NoPermissionError:
        raise
    except ResponseError:  # no such function
        found = "none"
    if found != wanted:
        raise LibraryMissingError(
            f"Redis holds version {found} of the queue's functions, not {wanted}, and this user may not load them; "
            "run `rushes queue install` once with an administrator's URL"
        )


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]
