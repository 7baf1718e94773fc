"""Every model has a queue and a folder of its own."""

from __future__ import annotations

import re

import pytest

from server.pool import pool_of


@pytest.mark.parametrize("model", ["diorama", "tiny-wan", "Wan-AI/Wan2.1", "a" * 100, "..", "/", "ünï", "a.b", "a b"])
def test_a_pool_is_a_name(model: str) -> None:
    """Whatever the model is called, its pool is a plain name, the same every time."""
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", pool_of(model))
    assert pool_of(model) == pool_of(model)


def test_different_models_have_different_pools() -> None:
    """Names that look alike once made plain are told apart."""
    models = ["a-b", "a/b", "a.b", "a b", "a--b", "a-b-", "A-b", "a" * 41, "a" * 42, "/", "."]
    assert len({pool_of(model) for model in models}) == len(models)
