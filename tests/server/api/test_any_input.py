"""Whatever is sent, the answer is an acceptance or a 4xx in the one form, never a 5xx."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.api.errors import MEDIA_TYPE
from server.api.schemas import GenerateBody
from tests.server.live import JSON, Gateway

_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NEARLY = st.one_of(
    _JUNK,
    st.integers(-1, 130),
    st.sampled_from([16, 32, 64, 96, 97, 5, 9, 17, 33]),
    st.floats(-1, 60),
    st.sampled_from(["mp4", "webm", "auto", "always", "never", "tiny-wan", "a red ball"]),
)
_FIELDS = st.sampled_from([*GenerateBody.model_fields, "extra", "Prompt"])
_BODIES = st.dictionaries(_FIELDS, _NEARLY, max_size=8) | _JUNK
# The gateway is shared on purpose: an answer must not depend on what others have sent before.
_SHARED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def check(answer: Any) -> None:
    assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code == 202:
        assert answer.json()["state"] == "queued"
    else:
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["status"] == answer.status_code


@_SHARED
@given(body=_BODIES)
def test_any_json(gateway: Gateway, body: Any) -> None:
    """Documents that are nearly requests, and documents that are anything."""
    check(gateway.post(body))


@_SHARED
@given(body=_BODIES.filter(lambda body: isinstance(body, dict)), prompt=st.text(min_size=1, max_size=600))
def test_any_fields_around_a_prompt(gateway: Gateway, body: dict[str, Any], prompt: str) -> None:
    """Any text as the prompt, any values beside it."""
    check(gateway.post(body | {"prompt": prompt}))


@_SHARED
@given(body=st.binary(max_size=200))
def test_any_bytes(gateway: Gateway, body: bytes) -> None:
    """Bytes that need not even be text."""
    check(gateway.client.post("/generate", content=body, headers=JSON))
