"""Reading a request body as JSON with nothing left to interpretation."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from server.api.errors import Problem

MAX_DEPTH = 32
# The closing quote is optional so that a match never fails: from failure the next quote would be tried, and the next,
# which takes a hostile body quadratic time.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def parse_json(body: bytes) -> Any:
    """The value of a UTF-8 JSON text; Problem `invalid_json` for anything that two readers could take differently.

    Refused besides broken syntax: NaN and Infinity, repeated keys, nesting beyond MAX_DEPTH, halves of surrogate pairs.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem("invalid_json", f"the body is not UTF-8 text at byte {error.start}") from None
    if _depth(text) > MAX_DEPTH:
        raise Problem("invalid_json", f"the body is nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise Problem(
            "invalid_json", f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except UnicodeEncodeError:
        raise Problem("invalid_json", "the body holds half of a surrogate pair, which is no character") from None
    except ValueError:
        # Python's own limit on the digits of a whole number.
        raise Problem("invalid_json", "the body holds a number with too many digits") from None
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise Problem("invalid_json", f"the body has the key {key[:64]!r} twice")
        members[key] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise Problem("invalid_json", f"the body holds {name}, which is no JSON number")
