"""The rungs of the memory ladder: the same film with less memory, and what each may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines import load_engine
from engines.engine import Engine
from engines.errors import InvalidRequest
from engines.types import GenerationRequest, GenerationResult, MemoryRung
from tests.engines.making import request

LARGE = {"width": 160, "height": 128, "num_frames": 5, "num_inference_steps": 2}


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operator gave."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.bytes = max([self.bytes, *sizes])
        return out


@pytest.fixture(scope="module")
def diorama() -> Engine:
    """The built-in model, whose pictures are smooth enough for seams to be seen."""
    return load_engine("diorama")


def film(engine: Engine, wanted: GenerationRequest, rung: MemoryRung) -> GenerationResult:
    (result,) = [e for e in engine.generate([wanted], rung=rung) if isinstance(e, GenerationResult)]
    return result


def test_a_tiled_film_is_the_same_film(diorama: Engine) -> None:
    """The latents are the same to the last bit and the frames but for what a tile cannot see; the rung is told."""
    wanted = request("me", **LARGE)
    whole, tiled = (film(diorama, wanted, rung) for rung in (MemoryRung.WHOLE, MemoryRung.TILED))
    assert np.array_equal(whole.latents, tiled.latents)
    assert (whole.rung, tiled.rung) == (MemoryRung.WHOLE, MemoryRung.TILED)
    assert whole.frames.shape == tiled.frames.shape
    difference = np.abs(whole.frames.astype(float) - tiled.frames.astype(float))
    assert 0 < difference.mean() < 3.0  # grey levels; an unblended seam or a shifted tile is worth tens
    assert np.array_equal(film(diorama, wanted, MemoryRung.WHOLE).frames, whole.frames)


def test_tiles_need_less_memory(diorama: Engine) -> None:
    """The largest tensor of decoding is less than half as large."""
    latents = torch.zeros(diorama._family.latent_shape(request(**LARGE).spec))
    largest = {}
    for tiled in (False, True):
        with LargestTensor() as mode:
            diorama._family.decode(latents, tiled=tiled)
        largest[tiled] = mode.bytes
    assert largest[True] < largest[False] / 2


def test_a_lower_rung_computes_no_padding_rows(tiny_wan: Path) -> None:
    """An engine that pads its batches does not on a lower rung, so that a job may fit alone; the film agrees."""
    padded = load_engine(tiny_wan, pad_batch_to=4)
    rows: list[int] = []
    velocity = padded._family.velocity

    def counted(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(latents))
        return velocity(latents, *rest)

    padded._backend.velocity = counted
    whole, lone = (film(padded, request("me"), rung) for rung in (MemoryRung.WHOLE, MemoryRung.TILED))
    assert set(rows[:3]) == {8}
    assert set(rows[3:]) == {2}
    assert np.allclose(whole.latents, lone.latents, atol=1e-5)


def test_a_rung_that_is_not_there_is_refused(tiny_wan: Path) -> None:
    """A processor has no other memory to send weights to."""
    engine = load_engine(tiny_wan, device="cpu")
    assert engine.rungs == (MemoryRung.WHOLE, MemoryRung.TILED)
    with pytest.raises(InvalidRequest, match="rung"):
        engine.generate([request()], rung=MemoryRung.OFFLOADED)


@pytest.mark.gpu
def test_weights_that_wait_come_back(tiny_wan: Path) -> None:
    """Offloaded, each stage has its own weights on the device and no others, and the film is the same."""
    engine = load_engine(tiny_wan, device="cuda")
    parts = engine._family.parts
    places: dict[str, set[str]] = {}
    whole = film(engine, request(), MemoryRung.TILED)
    for event in engine.generate([request()], rung=MemoryRung.OFFLOADED):
        if isinstance(event, GenerationResult):
            assert np.array_equal(event.latents, whole.latents)
        elif hasattr(event, "step"):
            places["denoise"] = {m.device.type for m in (parts.text_encoder, parts.vae)}
            assert parts.transformer.device.type == "cuda"
    assert places == {"denoise": {"cpu"}}
    assert {m.device.type for m in (parts.text_encoder, parts.vae, parts.transformer)} == {"cuda"}
