"""Clips of the Diorama world rendered in order, by this process or by several, while the caller does something else.

Legend: N clips, F frames, S side in pixels.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.record import Split
from post_train.data.diorama.world import make_clip

_AHEAD = 3  # chunks in flight for each process: none waits for the caller, and memory stays bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """Which clips: `seeds` of a split, square of `side` pixels, with `num_frames` frames."""

    seeds: range
    split: Split
    side: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Frames uint8 [N, F, S, S, 3] of clips, and each one's full and short caption."""

    frames: NDArray[np.uint8]
    full: list[str]
    short: list[str]


def render_shots(shots: Shots) -> Rendered:
    """The clips of `shots`."""
    clips = [make_clip(s, side=shots.side, num_frames=shots.num_frames, split=shots.split) for s in shots.seeds]
    return Rendered(
        frames=np.stack([c.frames for c in clips]),
        full=[c.captions.full.text for c in clips],
        short=[c.captions.short.text for c in clips],
    )


def rendered(shots: Iterable[Shots], *, workers: int) -> Iterator[Rendered]:
    """Each of `shots` rendered, in order: by `workers` other processes, or for 0 by this one when it is asked."""
    if workers == 0:
        yield from map(render_shots, shots)
        return
    # Not forked: a process that has started threads or a GPU must not be.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        flying: deque[Future[Rendered]] = deque()
        for some in shots:
            flying.append(pool.submit(render_shots, some))
            if len(flying) >= _AHEAD * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
