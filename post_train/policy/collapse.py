"""Films that have given up: frozen ones, and pictures of one colour, which some rewards like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

_STILL = 0.4  # grey levels from frame to frame: grain that a decoder makes of nothing lies below
_FLAT = 4.0  # grey levels of deviation within a frame
_MOST = 0.5  # of a rollout's films


class CollapsedPolicyError(RuntimeError, ValueError):
    """Most films of a rollout are frozen or of one colour: the run stops before it learns from them."""


def frozen_share(films: Sequence[Frames]) -> float:
    """The share of films uint8 [F, H, W, 3] of which no frame differs from the next."""
    return _share(films, lambda f: float(np.abs(np.diff(f.astype(np.float32), axis=0)).mean()) < _STILL)


def flat_share(films: Sequence[Frames]) -> float:
    """The share of films whose pictures are of one colour."""
    return _share(films, lambda f: float(f.astype(np.float32).std(axis=(1, 2)).mean()) < _FLAT)


def check_alive(frozen: float, flat: float, *, step: int) -> None:
    """CollapsedPolicyError when more than half of a rollout's films are frozen, or flat."""
    for what, share in (("frozen", frozen), ("of one colour", flat)):
        if share > _MOST:
            raise CollapsedPolicyError(
                f"{share:.0%} of the films before update {step} are {what}: the policy has found what pleases the "
                "reward and nobody else; the last checkpoint is from before it learnt from them. Go on from an earlier "
                "one with a lower learning rate, a KL coefficient or another reward"
            )


def _share(films: Sequence[Frames], is_so: Callable[[Frames], bool]) -> float:
    return float(np.mean([is_so(film) for film in films])) if films else 0.0
