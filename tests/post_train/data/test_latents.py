"""Latents of the world's clips: the same by one process or several, and waited for when another makes them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from post_train.data.diorama.record import Split
from post_train.data.diorama.world import make_clip
from post_train.data.latents import LatentCache
from post_train.data.rendering import Shots, rendered
from tests.post_train.small_recipes import small_base, small_vae


def _shots() -> list[Shots]:
    return [Shots(seeds=range(s, s + 3), split=Split.WILD, side=32, num_frames=9) for s in range(0, 15, 3)]


def test_several_processes_render_what_one_does_in_order() -> None:
    """Two workers give every clip and caption of `make_clip`, in order."""
    parts = list(rendered(_shots(), workers=2))
    alone = list(rendered(_shots(), workers=0))
    assert len(parts) == len(alone) == 5
    clip = make_clip(13, side=32, num_frames=9, split=Split.WILD)
    assert np.array_equal(parts[4].frames[1], clip.frames)
    assert (parts[4].full[1], parts[4].short[1]) == (clip.captions.full.text, clip.captions.short.text)
    for ours, theirs in zip(parts, alone, strict=True):
        assert np.array_equal(ours.frames, theirs.frames)
        assert (ours.full, ours.short) == (theirs.full, theirs.short)


def _cache(root: Path, **machine: object) -> LatentCache:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**small_vae().vae.model).eval()
    return LatentCache(root, vae, replace(small_base().base.latents, shard_clips=6, shards=2), **machine)  # type: ignore[arg-type]


def test_shards_are_the_same_whoever_renders(tmp_path: Path) -> None:
    """Rendered by two processes or by this one, a shard holds the same latents and captions."""
    alone, helped = _cache(tmp_path / "alone"), _cache(tmp_path / "helped", workers=2)
    told: list[str] = []
    helped.build_all(told.append)
    assert told == ["shard 1 of 2", "shard 2 of 2"]
    for index in range(2):
        ours, theirs = helped.shard(index), alone.shard(index)
        assert torch.equal(ours.latents, theirs.latents)
        assert (ours.full, ours.short) == (theirs.full, theirs.short)


def test_a_shard_that_is_made_beside_is_waited_for(tmp_path: Path) -> None:
    """A cache that does not make its shards gives one as soon as another process has written it, and not before."""
    waiting, maker = _cache(tmp_path, made_beside=True), _cache(tmp_path)
    got: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: got.append(waiting.shard(1).latents), daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive(), "it did not wait"
    made = maker.shard(1).latents
    thread.join(30)
    assert torch.equal(got[0], made)


def test_a_shard_beyond_the_cache_is_refused_at_once(tmp_path: Path) -> None:
    """Also where shards are made beside it: nobody would ever make that one."""
    with pytest.raises(ValueError, match="shard 2 is not one of the 2 shards"):
        _cache(tmp_path, made_beside=True).shard(2)
