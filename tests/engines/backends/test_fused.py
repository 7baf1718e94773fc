"""The backend of our operators makes the film that the eager one makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines import load_engine
from engines.families.wan import Wan
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


def test_every_block_is_ours(tiny_wan: Path) -> None:
    """None of diffusers' own is left."""
    family = load_engine(tiny_wan, backend="fused")._family
    assert isinstance(family, Wan)
    assert all(isinstance(block, OperatorBlock) for block in family.parts.transformer.blocks)
