"""Groups of films of which it is known which looks better: a render, corruptions of it, and films by weaker models.

Legend: F frames, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.corruptions import LOOKS, Frames, Look
from post_train.data.diorama.corruptions.untrue import held
from post_train.data.diorama.world import make_clip
from post_train.data.model_films import ModelFilms

GROUP = 8  # films
# What takes an eye for shapes or for true colours is learnt slowly, so it is drawn three times as often.
_HARD = ("melting", "bulge", "over_smooth", "tone", "colour_shift", "misregistration", "ringing")
_ONE_PLANE = 0.2  # of the looks of a mixture
_DRAWN: tuple[Look, ...] = (*LOOKS.values(), *(LOOKS[n] for n in _HARD for _ in range(2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Films of one clip with what is known of them: `pairs` of rows, (better, worse)."""

    films: list[Frames]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variety:
    """How the groups vary, in shares: `enlarged` clips are crops of larger renders, `local` looks of a mixture spoil a
    part only, groups `by_models` hold films by checkpoints, and `held` ones a film that stands still.

    Each film is `window` frames in a row of a clip of `num_frames`: more clips in the same time.
    """

    side: int
    num_frames: int
    window: int
    enlarged: float
    local: float
    by_models: float
    held: float


def _enlarged(clip_seed: int, variety: Variety, rng: np.random.Generator) -> Frames:
    """A random crop of a render half as large again: no judge may count on one size of things."""
    side = variety.side
    whole = make_clip(clip_seed, side=side * 3 // 2, num_frames=variety.num_frames).frames
    top, left = rng.integers(0, whole.shape[1] - side + 1, 2)
    return whole[:, top : top + side, left : left + side]


def _window(frames: Frames, variety: Variety, rng: np.random.Generator) -> slice:
    start = int(rng.integers(len(frames) - variety.window + 1))
    return slice(start, start + variety.window)


def _part(frames: Frames, rng: np.random.Generator) -> NDArray[np.float32]:
    """A soft share in [0, 1] of each pixel, [F, S, S, 1], that covers a part of the picture and perhaps of the time."""
    count, height, width, _ = frames.shape
    along = np.ones(count, np.float32)
    if rng.random() < 0.5:
        start = int(rng.integers(0, count - 1))
        along[:] = 0
        along[start : start + int(rng.integers(2, count))] = 1
    y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.2, 0.6) * height
    rows, columns = np.mgrid[0:height, 0:width]
    inside = np.clip((radius - np.hypot(rows - y, columns - x)) / 4 + 0.5, 0, 1).astype(np.float32)
    return along[:, None, None, None] * inside[None, :, :, None]


def _in_one_plane(frames: Frames, spoilt: Frames, rng: np.random.Generator) -> Frames:
    """What is spoilt of the brightness alone, or of the colour alone."""
    kept, changed = (np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2YCrCb) for f in v]) for v in (frames, spoilt))
    planes = slice(0, 1) if rng.random() < 0.4 else slice(1, 3)
    kept[..., planes] = changed[..., planes]
    return np.stack([cv2.cvtColor(f, cv2.COLOR_YCrCb2RGB) for f in kept]).astype(np.uint8)


def _drawn(rng: np.random.Generator) -> Look:
    return _DRAWN[int(rng.integers(len(_DRAWN)))]


def mixture(frames: Frames, rng: np.random.Generator, local: float) -> Frames:
    """One to three looks on top of one another, each on the whole film or on a part of it."""
    out = frames
    for _ in range(int(rng.integers(1, 4))):
        spoilt = _drawn(rng)(out, float(rng.uniform(0.2, 1)), rng)
        if rng.random() < _ONE_PLANE:
            spoilt = _in_one_plane(out, spoilt, rng)
        if rng.random() < local:
            share = _part(frames, rng)
            spoilt = ((1 - share) * out + share * spoilt + 0.5).astype(np.uint8)
        out = spoilt
    return out


def _graded(frames: Frames, rng: np.random.Generator) -> tuple[Frames, Frames]:
    """One look at a strength and at a greater one, alike in everything else."""
    look = _drawn(rng)
    weak, same = float(rng.uniform(0.03, 0.8)), int(rng.integers(2**62))
    strong = float(rng.uniform(min(1.0, weak + 0.15), 1))
    return look(frames, weak, np.random.default_rng(same)), look(frames, strong, np.random.default_rng(same))


def group_of_clip(clip_seed: int, *, variety: Variety, rng: np.random.Generator) -> Ranked:
    """A render (row 0) above all else; two looks at two strengths each, then mixtures or a film that stands still."""
    if rng.random() < variety.enlarged:
        whole = _enlarged(clip_seed, variety, rng)
    else:
        whole = make_clip(clip_seed, side=variety.side, num_frames=variety.num_frames).frames
    frames = whole[_window(whole, variety, rng)]
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1].copy()
    films = [frames, *_graded(frames, rng), *_graded(frames, rng)]
    films += [mixture(frames, rng, variety.local) for _ in range(GROUP - len(films) - 1)]
    still = rng.random() < variety.held
    films.append(held(frames, float(rng.uniform(0.4, 1))) if still else mixture(frames, rng, variety.local))
    return Ranked(films=films, pairs=(*((0, row) for row in range(1, GROUP)), (1, 2), (3, 4)))


def group_with_models(films: ModelFilms, index: int, *, variety: Variety, rng: np.random.Generator) -> Ranked:
    """The clip's render (row 0), films of its caption by two checkpoints (1 stronger, 2 weaker), all three spoilt."""
    stronger = int(rng.integers(0, len(films.takes)))
    weaker = int(rng.integers(0, max(1, stronger)))
    clip = make_clip(films.clip_seeds[index], side=variety.side, num_frames=variety.num_frames)
    seen = _window(clip.frames, variety, rng)
    frames, by_stronger, by_weaker = (
        f[seen] for f in (clip.frames, *(films.takes[i][index] for i in (stronger, weaker)))
    )
    weak, strong = _graded(by_stronger, rng)
    rows = [frames, by_stronger, by_weaker, weak, strong]
    rows += [mixture(f, rng, variety.local) for f in (by_stronger, by_weaker, frames)]
    pairs = [(0, row) for row in range(1, GROUP)] + [(3, 4), (1, 3), (1, 5), (2, 6)]
    return Ranked(films=rows, pairs=tuple(pairs if weaker == stronger else [*pairs, (1, 2)]))
