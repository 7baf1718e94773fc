"""Prompts' keys computed once give the velocity that 512 padded tokens give, whoever shares the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines import load_engine
from engines.engine import Engine
from engines.families.wan import Wan
from engines.family import EncodedText

_PROMPTS = ("a cat", "a red ball rolls over a meadow under a blue sky and far away hills", "")


@pytest.fixture(scope="module")
def engines(tiny_wan: Path) -> tuple[Engine, Engine]:
    """As diffusers computes, and with our operators."""
    return load_engine(tiny_wan), load_engine(tiny_wan, backend="fused")


def _velocity(engine: Engine, latents: torch.Tensor, prompts: tuple[str, ...]) -> torch.Tensor:
    family = engine._family
    condition = family.condition(family.encode(prompts))
    first = family.velocity(latents, torch.tensor(500), condition)
    assert torch.equal(family.velocity(latents, torch.tensor(500), condition), first), "a step changed the condition"
    return first


def _latents(engine: Engine, rows: int) -> torch.Tensor:
    family = engine._family
    assert isinstance(family, Wan)
    channels = family.parts.transformer.config["in_channels"]
    return torch.randn(rows, channels, 2, 4, 4, generator=torch.Generator().manual_seed(rows))


def test_the_velocity_is_that_of_512_tokens(engines: tuple[Engine, Engine]) -> None:
    """Of a short prompt, a long one and an empty one, within 1e-5 of the largest."""
    eager, fused = engines
    latents = _latents(eager, len(_PROMPTS))
    want, got = (_velocity(engine, latents, _PROMPTS) for engine in (eager, fused))
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5


def test_a_mate_with_a_longer_prompt_changes_no_bit(engines: tuple[Engine, Engine]) -> None:
    """A row's velocity at equal batch size, whatever the mate asks for and wherever the row stands."""
    _, fused = engines
    latents = _latents(fused, 1).repeat(2, 1, 1, 1, 1)
    rows = [
        _velocity(fused, latents, (_PROMPTS[0], _PROMPTS[1]))[0],
        _velocity(fused, latents, (_PROMPTS[0], _PROMPTS[2]))[0],
        _velocity(fused, latents, (_PROMPTS[1], _PROMPTS[0]))[1],
    ]
    assert all(torch.equal(row, rows[0]) for row in rows)


def test_a_prompt_of_512_tokens_has_no_padding_to_count(engines: tuple[Engine, Engine]) -> None:
    """Nothing is raised then, and no column is added."""
    eager, fused = engines
    width = eager._family.encode(["a"]).embeds.shape[2]
    full = EncodedText(embeds=torch.randn(1, 512, width), lengths=(512,))
    latents = _latents(eager, 1)
    want, got = (
        engine._family.velocity(latents, torch.tensor(500), engine._family.condition(full)) for engine in (eager, fused)
    )
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5
