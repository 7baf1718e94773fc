"""The one table of error codes, the exception that carries one, and its application/problem+json answer (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Response

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of error: `code` is stable for programs, `status` is HTTP's, `title` is the same for every occurrence."""

    code: str
    status: int
    title: str


def _table(*rows: tuple[str, int, str]) -> dict[str, Kind]:
    return {code: Kind(code=code, status=status, title=title) for code, status, title in rows}


# Codes are a promise to clients: add rows, never change or reuse one.
KINDS = _table(
    ("invalid_http", 400, "The request is not HTTP/1.1"),
    ("invalid_json", 400, "The body is not acceptable JSON"),
    ("invalid_host", 400, "The Host header names no host of this server"),
    ("unauthorized", 401, "An API key is needed"),
    ("not_found", 404, "There is no such thing"),
    ("video_missing", 404, "The job ended without a video"),
    ("method_not_allowed", 405, "The method does not apply here"),
    ("request_timeout", 408, "The request did not arrive in time"),
    ("video_not_ready", 409, "The video is not made yet"),
    ("video_expired", 410, "The video is no longer kept"),
    ("body_too_large", 413, "The body is too large"),
    ("unsupported_media_type", 415, "The body's type is not supported"),
    ("range_not_satisfiable", 416, "The range lies outside the video"),
    ("invalid_field", 422, "A field cannot be used"),
    ("unknown_model", 422, "The model is not served here"),
    ("enhancer_unavailable", 422, "There is no prompt enhancer here"),
    ("webhooks_unavailable", 422, "Webhooks are not sent here"),
    ("idempotency_conflict", 422, "The idempotency key belongs to another request"),
    ("queue_full", 429, "The queue is full"),
    ("tenant_quota", 429, "The tenant has as much in the queue as it may"),
    ("too_many_streams", 429, "Too many event streams are open"),
    ("internal_error", 500, "The server failed"),
    ("queue_unavailable", 503, "The queue cannot be reached"),
    ("not_ready", 503, "The server is not ready to make videos"),
)


class Problem(Exception):  # noqa: N818 - the standard's own word for it
    """An answer that is an error: `detail` is one sentence for the person who sent the request."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        """`members` are further JSON members, such as the field that is wrong."""
        super().__init__(detail)
        self.kind = KINDS[code]
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self) -> Response:
        """The answer; pure ASCII, so that no text of a client can make it unencodable."""
        document = {
            "type": f"urn:rushes:problem:{self.kind.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.kind.code,
            "detail": self.detail,
            **self.members,
        }
        return Response(json.dumps(document), status_code=self.kind.status, media_type=MEDIA_TYPE, headers=self.headers)


def field_problem(field: str, detail: str) -> Problem:
    """`invalid_field` with the field named apart, so that a form can mark it."""
    return Problem("invalid_field", detail, field=field, errors=[{"field": field, "detail": detail}])


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that may answer with these codes."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        entry = responses.setdefault(
            kind.status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
        )
        entry["description"] = "; ".join(filter(None, (entry["description"], f"`{code}`: {kind.title}")))
    return responses


PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "An error as RFC 9457 has it.",
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "description": "`urn:rushes:problem:` and the code."},
        "title": {"type": "string", "description": "The kind of error in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "code": {"type": "string", "enum": sorted(KINDS), "description": "The kind of error for programs; stable."},
        "detail": {"type": "string", "description": "What is wrong with this request, in one sentence."},
        "field": {"type": "string", "description": "The field that is wrong, if one is."},
        "errors": {
            "type": "array",
            "description": "Every field that is wrong.",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
