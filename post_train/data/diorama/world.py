"""The Diorama world's one door: a seed in, a captioned clip with its whole truth out."""

from __future__ import annotations

import numpy as np

from post_train.data.diorama.captions import captions_of
from post_train.data.diorama.compose import compose
from post_train.data.diorama.record import Clip, Split
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
    if seed < 0:
        raise ValueError(f"a clip's seed must not be negative, got {seed}")
    if side < 32 or num_frames < 5:
        raise ValueError(f"a clip needs a side of at least 32 and 5 frames, got {side} and {num_frames}")
    rng = np.random.default_rng((VERSION, seed, 0 if split is Split.CLEAN else 1))
    scene = compose(rng, num_frames, split, held_out=held_out)
    captions = captions_of(rng, scene, careless=split is Split.WILD)
    frames = render(scene, side, num_frames)
    if split is Split.WILD:
        frames = weather_the_web(rng, frames)
    return Clip(frames=frames, scene=scene, captions=captions, seed=seed, split=split, version=VERSION)
