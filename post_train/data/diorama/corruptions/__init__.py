"""Ways to harm a clip with a known effect, by name: some for training judges, some kept out to measure them.

Untrue ones falsify the caption (TA), unphysical ones break motion (MQ), and looks spoil the picture (VQ).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from post_train.data.diorama.corruptions import unphysical, untrue
from post_train.data.diorama.corruptions.base import Change, Corruption, Frames
from post_train.data.diorama.corruptions.looks import LOOKS, Look
from post_train.data.diorama.corruptions.unseen_looks import UNSEEN_LOOKS
from post_train.data.diorama.record import Clip
from post_train.rewards.base import Dimension

__all__ = ["CORRUPTIONS", "LOOKS", "UNSEEN_LOOKS", "Change", "Corruption", "Frames", "Look", "named_corruption"]

_TA, _MQ, _VQ = Dimension.TEXT_ALIGNMENT, Dimension.MOTION_QUALITY, Dimension.VISUAL_QUALITY


def _family(hurts: tuple[Dimension, ...], changes: Iterable[Change], *, kept_out: bool) -> list[Corruption]:
    return [Corruption(name=c.__name__, hurts=hurts, kept_out=kept_out, change=c) for c in changes]


def _of_looks(looks: dict[str, Look], *, kept_out: bool) -> list[Corruption]:
    def change_of(look: Look) -> Change:
        def change(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
            return look(clip.frames, strength, rng)

        return change

    return [Corruption(name=n, hurts=(_VQ,), kept_out=kept_out, change=change_of(f)) for n, f in looks.items()]


CORRUPTIONS: dict[str, Corruption] = {
    c.name: c
    for c in (
        *_family((_TA, _MQ), (untrue.frozen,), kept_out=False),
        *_family(
            (_TA,),
            (
                untrue.backwards,
                untrue.wrong_colour,
                untrue.replaced,
                untrue.removed,
                untrue.wrong_ground,
                untrue.wrong_sky,
            ),
            kept_out=False,
        ),
        *_family((_TA,), (untrue.mirrored, untrue.wrong_weather, untrue.wrong_camera), kept_out=True),
        *_family(
            (_MQ,),
            (
                unphysical.teleport,
                unphysical.vanish,
                unphysical.doubling,
                unphysical.jitter,
                unphysical.shuffle,
                unphysical.morph,
            ),
            kept_out=False,
        ),
        *_family((_MQ,), (unphysical.rewind, unphysical.stutter, unphysical.pulsing, unphysical.cut), kept_out=True),
        *_of_looks(LOOKS, kept_out=False),
        *_of_looks(UNSEEN_LOOKS, kept_out=True),
    )
}


def named_corruption(name: str) -> Corruption:
    """The corruption called `name`, or ValueError with the names there are."""
    try:
        return CORRUPTIONS[name]
    except KeyError:
        raise ValueError(f"corruption {name!r} is unknown; there are {', '.join(CORRUPTIONS)}") from None
