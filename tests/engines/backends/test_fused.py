"""The backend of our operators makes the film that the eager one makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines import load_engine
from engines.families import wan
from engines.families.wan import Wan
from engines.operators import whole_clip
from engines.operators.wan import OperatorBlock
from kernels.dispatch import recorded
from tests.engines.making import films, request


def test_the_film_is_the_eager_one(tiny_wan: Path) -> None:
    """Latents within 1e-5 of the largest, and it was our operators that computed, in transformer and VAE."""
    (want,) = films(load_engine(tiny_wan), request())
    with recorded() as ran:
        (got,) = films(load_engine(tiny_wan, backend="fused"), request())
    assert np.abs(got.latents - want.latents).max() <= 1e-5 * np.abs(want.latents).max()
    assert np.abs(got.frames.astype(int) - want.frames).max() <= 1
    assert {name for name, _ in ran} >= {"modulated_norm", "gated_norm", "qk_norm_rope", "attention", "causal_conv3d"}


@pytest.mark.parametrize(("form", "most"), [("int8", 0.03), ("fp8", 0.15)])
def test_the_film_in_eight_bits_is_near_it(tiny_wan: Path, form: str, most: float) -> None:
    """By the backend's name: not equal, near by as much as the form allows, and the same in any company."""
    (want,) = films(load_engine(tiny_wan), request())
    engine = load_engine(tiny_wan, backend=f"fused-{form}", pad_batch_to=2)
    with recorded() as ran:
        (got,) = films(engine, request())
    error = float(np.linalg.norm(got.latents - want.latents) / np.linalg.norm(want.latents))
    assert 1e-4 < error < most
    assert {name for name, _ in ran} >= {"quantized_norm", "quantized_linear", "quantize_rows", "causal_conv3d"}
    mates = films(engine, request("mate", seed=9, prompt="a cat"), request("me"))
    assert np.array_equal(mates[1].latents, got.latents)


def test_a_film_too_large_for_one_pass_is_decoded_in_chunks(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound the VAE walks the latent frames as diffusers does, to the same frames but for a rounding."""
    engine = load_engine(tiny_wan, backend="fused")
    latents = torch.randn(engine._family.latent_shape(request().spec), generator=torch.Generator().manual_seed(0))
    whole = engine._family.decode(latents)
    monkeypatch.setattr(wan, "_WHOLE_CLIP_BYTES", 0)
    monkeypatch.setattr(whole_clip, "decode", lambda *_: pytest.fail("it was decoded in one pass"))
    assert int((engine._family.decode(latents).int() - whole.int()).abs().max()) <= 1


def test_every_block_is_ours(tiny_wan: Path) -> None:
    """None of diffusers' own is left."""
    family = load_engine(tiny_wan, backend="fused")._family
    assert isinstance(family, Wan)
    assert all(isinstance(block, OperatorBlock) for block in family.parts.transformer.blocks)
