"""Prompts that were asked before: the same embeddings to the bit, without the encoder, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engines.engine import Engine, load_engine
from engines.family import EncodedText
from engines.prompt_cache import PromptCache
from engines.types import GenerationResult
from post_train.films import FilmOrder, request_of


@pytest.fixture
def engine(tiny_wan: Path) -> Engine:
    """An engine of its own."""
    return load_engine(tiny_wan)


def _counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    encode = engine.family.encode

    def counting(prompts: Sequence[str]) -> EncodedText:
        asked.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(engine.family, "encode", counting)
    return asked


def test_it_says_what_the_encoder_says(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, new and repeated prompts in any company, an empty one and one longer than 512 tokens among them."""
    true = engine.family.encode
    asked = _counted(engine, monkeypatch)
    cache = PromptCache(engine.family)
    prompts = ["a red ball", "", "a blue ball rolls", "word " * 900]
    for some in (prompts[:2], prompts, prompts[::-1], [prompts[2], prompts[2]]):
        found, wanted = cache.encode(some), true(some)
        assert torch.equal(found.embeds, wanted.embeds)
        assert found.lengths == wanted.lengths
    assert sorted(asked) == sorted(prompts), "each went through the encoder once"


def test_a_film_asked_again_encodes_nothing_and_is_the_same(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed of a prompt, and the negative prompt of every film, cost no encoder; films stay the same."""
    asked = _counted(engine, monkeypatch)

    def film(seed: int) -> torch.Tensor:
        request = request_of(engine.card, FilmOrder(name="x", prompt="a red ball", seed=seed, steps=2))
        (made,) = [e for e in engine.generate([request]) if isinstance(e, GenerationResult)]
        return torch.from_numpy(made.latents)

    first = film(1)
    before = len(asked)
    film(2)
    assert torch.equal(film(1), first)
    assert len(asked) == before


def test_it_keeps_to_its_bytes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not asked for longest is forgotten; a prompt beyond all bounds is encoded each time."""
    one = engine.family.encode(["a red ball"])
    size = one.embeds[0, : one.lengths[0]].nbytes
    asked = _counted(engine, monkeypatch)
    cache = PromptCache(engine.family, most_bytes=2 * size)
    for prompt in ("a red ball", "a big ball", "a red ball", "a new ball", "a red ball", "a big ball"):
        cache.encode([prompt])
    assert asked == ["a red ball", "a big ball", "a new ball", "a big ball"]
    none = PromptCache(engine.family, most_bytes=0)
    assert torch.equal(none.encode(["a red ball"]).embeds, none.encode(["a red ball"]).embeds)
