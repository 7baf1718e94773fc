"""Reading JSON strictly, where HTTP adds nothing: depth, and the time that a hostile body takes."""

from __future__ import annotations

import pytest

from server.api.errors import Problem
from server.api.strict_json import MAX_DEPTH, parse_json


def refusal(body: str) -> str:
    with pytest.raises(Problem) as caught:
        parse_json(body.encode())
    assert caught.value.kind.code == "invalid_json"
    return caught.value.detail


def test_depth_counts_brackets_outside_strings() -> None:
    """As deep as is allowed is read, one deeper is refused, and brackets in a text are text."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deepest.encode()) is not None
    assert "nested" in refusal(f"[{deepest}]")
    text = '\\"' + "[" * 100
    assert parse_json(f'{{"prompt": "{text}"}}'.encode()) == {"prompt": '"' + "[" * 100}


@pytest.mark.parametrize(
    "body",
    ['"' + '\\"' * 500_000, '"\\' * 500_000, '"' + "\\" * 999_999, '"' + "[" * 1_000_000, '""' * 500_000],
    ids=["escaped quotes", "quotes and backslashes", "backslashes", "brackets in an open string", "empty strings"],
)
def test_a_long_hostile_body_is_refused_soon(body: str) -> None:
    """The time is proportional to the length; were it quadratic, these would take minutes and meet the time-out."""
    assert "not JSON" in refusal(body)
