"""The Diorama world's one door: a seed in, a captioned clip with its whole truth out."""

from __future__ import annotations

import numpy as np

from post_train.data.diorama.captions import captions_of
from post_train.data.diorama.compose import compose
from post_train.data.diorama.record import Captions, Clip, Scene, Split
from post_train.data.diorama.render import render
from post_train.data.diorama.wild import weather_the_web

# Counts up whenever any seed's clip changes: caches, manifests and reports name it.
VERSION = 2


def make_clip(
    seed: int, *, side: int = 64, num_frames: int = 17, split: Split = Split.CLEAN, held_out: bool = False
) -> Clip:
    """The clip of `seed`: frames uint8 [num_frames, side, side, 3], captions and truth.

    A pure function of its arguments and VERSION. With `held_out` it shows a composition (object, action, ground) that
    no other clip shows: for evaluation only. Raises ValueError for a negative seed, a side under 32 or fewer
    than 5 frames, where no action could be told from another.
    """
    if side < 32:
        raise ValueError(f"a clip needs a side of at least 32, got {side}")
    rng, scene, captions = _written(seed, num_frames, split, held_out)
    frames = render(scene, side, num_frames)
    if split is Split.WILD:
        frames = weather_the_web(rng, frames)
    return Clip(frames=frames, scene=scene, captions=captions, seed=seed, split=split, version=VERSION)


def make_captions(seed: int, *, num_frames: int = 17, split: Split = Split.CLEAN, held_out: bool = False) -> Captions:
    """The captions of `make_clip`'s clip of the same arguments, without a picture drawn; ValueError as there."""
    return _written(seed, num_frames, split, held_out)[2]


def _written(seed: int, num_frames: int, split: Split, held_out: bool) -> tuple[np.random.Generator, Scene, Captions]:
    """What a clip shows and tells, and the random numbers as they stand before its pictures are drawn."""
    if seed < 0:
        raise ValueError(f"a clip's seed must not be negative, got {seed}")
    if num_frames < 5:
        raise ValueError(f"a clip needs at least 5 frames, got {num_frames}")
    rng = np.random.default_rng((VERSION, seed, 0 if split is Split.CLEAN else 1))
    scene = compose(rng, num_frames, split, held_out=held_out)
    return rng, scene, captions_of(rng, scene, careless=split is Split.WILD)
