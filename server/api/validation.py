"""The framework's findings about a request, told as one problem in our words."""

from __future__ import annotations

import difflib
import json
from typing import Any

from fastapi.exceptions import RequestValidationError

from server.api.errors import Problem, field_problem
from server.api.schemas import GenerateBody

_KNOWN = tuple(GenerateBody.model_fields)
_MOST_TOLD = 20


def problem_of(error: RequestValidationError) -> Problem:
    """`invalid_field` with every field that is wrong, the first one in the sentence."""
    found = [_finding(item) for item in error.errors()]
    first = field_problem(found[0]["field"], found[0]["detail"])
    first.members["errors"] = found[:_MOST_TOLD]
    return first


def _finding(item: dict[str, Any]) -> dict[str, str]:
    place, *inner = [str(part) for part in item["loc"]]
    field = ".".join(inner)[:64] if inner else place
    seen = _shown(item.get("input"))
    match item["type"]:
        case "missing" if not inner:
            detail = "the body is empty; send a JSON object with at least a prompt"
        case "missing":
            detail = f"{field} is missing"
        case "extra_forbidden":
            near = difflib.get_close_matches(field, _KNOWN, n=1)
            detail = f"{field!r} is no field of this request" + (f"; did you mean {near[0]}?" if near else "")
        case "model_attributes_type" | "model_type" | "dict_type":
            detail = f"the body must be a JSON object, not {seen}"
        case _:
            message = item["msg"].removeprefix("Value error, ").replace("Input should", "it must")
            detail = f"{field} is {seen}: {message[0].lower()}{message[1:]}"
    return {"field": field, "detail": detail}


def _shown(value: Any) -> str:
    """The value as the client wrote it, near enough, and short."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
