"""Motion quality (MQ): how plausibly a film moves, from the tracks a judge reads and from its pixels' flow.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.rewards import flow, reading, trajectories
from post_train.rewards.base import Dimension, Film, RewardError, Score
from post_train.rewards.flow import Frames, dense_flow, vbench_motion, warp_residual
from post_train.rewards.reading import Reading
from post_train.rewards.trajectories import absent_share, boxes, doubled_share, surprises, travel, tremor

_UNEXPLAINED = 20.0  # grey levels: what a warp may miss by without having missed a thing
_STIRRED = 6.0  # grey levels: a smaller change of a pixel is not seen
_STILL_AREA = 0.002  # a pair of frames of which less has changed stands still
_TRAVEL = 0.05  # sides: an object that ranges less has not gone anywhere
_ALIVE = 0.3  # of an object's own pixels: if fewer change, it does nothing in its place either
_FORETOLD = 0.25  # sides: a track with a greater surprise answers for nothing at that step
_USUAL_TREMOR = 0.06  # sides: third differences that a reader makes of its own
_LEAST_FRAMES, _LEAST_SIDE = 5, 32


class Reader(Protocol):
    """Reads films, as the trained judges do; `digest` names its weights."""

    name: str
    digest: str

    def read(self, films: Sequence[Frames]) -> list[Reading]:
        """One reading a film, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionParts:
    """What motion quality is made of, each in [0, 1] with 1 for nothing amiss; the value is their product.

    `moving` falls with frozen frames and objects that never stir, `steady` with jumps and trembling, `lasting` with
    absences, `single` with doubles, `seamless` with changes that no flow and no tracked object explains, `orderly` with
    frames that lie better in another order, `warped` with the mean error of the flow's warp.
    """

    moving: float
    steady: float
    lasting: float
    single: float
    seamless: float
    orderly: float
    warped: float

    @property
    def value(self) -> float:
        return float(np.prod([getattr(self, f.name) for f in fields(self)]))


def _softly(amount: float, half: float, power: float) -> float:
    """1 for nothing, 1/2 at `half`, towards 0 beyond."""
    return 1.0 / (1.0 + (max(0.0, amount) / half) ** power)


def _unexplained(frames: Frames, seen: Reading | None) -> tuple[float, float]:
    """Shares of the picture that neither warp direction explains: the worst step's excess over the usual, and the mean.

    Where a tracked object is on both frames of a step that its motion foretells, its track answers for it.
    """
    ahead = warp_residual(frames, dense_flow(frames))
    back = warp_residual(frames[::-1], dense_flow(frames[::-1]))[::-1]
    amiss = np.stack([ahead > _UNEXPLAINED, back > _UNEXPLAINED])
    mean = float(amiss.mean((2, 3)).max(0).mean())
    if seen is not None and seen.objects:
        _, height, width, _ = frames.shape
        for thing in seen.objects:
            where = boxes((thing,), height, width, reach=1.3)
            there = np.asarray(where.any((1, 2)))
            both = (there[1:] & there[:-1] & (surprises(thing.track) < _FORETOLD))[:, None, None]
            amiss &= ~(both & (where[1:] | where[:-1]))
    steps = amiss.mean((2, 3)).max(0)
    return float(steps.max() - np.median(steps)), mean


def _distances(frames: Frames) -> NDArray[np.float32]:
    """The mean absolute difference of each frame to each other, on a quarter of the pixels, float32 [F, F]."""
    small = np.stack([cv2.resize(f, (32, 32), interpolation=cv2.INTER_AREA) for f in frames]).astype(np.float32)
    return np.stack([np.abs(small - one).mean((1, 2, 3)) for one in small])


def _disorder(frames: Frames) -> tuple[float, float]:
    """How much shorter the way through the frames gets where two neighbours change places, as a share of it;

    and how far apart neighbours are against frames three to five steps apart.
    """
    d = _distances(frames)
    last = len(d) - 1
    way = d[np.arange(last), np.arange(1, last + 1)]
    gain = sum(max(0.0, float(d[i, i + 1] + d[i + 2, i + 3] - d[i, i + 2] - d[i + 1, i + 3])) for i in range(last - 2))
    farther = [float(np.diagonal(d, k).mean()) for k in (3, 4, 5) if k <= last]
    total = float(way.sum())
    return gain / (total + 1e-3), total / last / (float(np.mean(farther)) + 0.1)


def _changed(frames: Frames, *, blur: float, lag: int) -> NDArray[np.bool_]:
    """Where a frame differs to the eye from the one `lag` later, bool [F - lag, H, W].

    A blur of so many pixels (at a side of 64) keeps grain that boils in place from being taken for motion.
    """
    if blur:
        sigma = blur * min(frames.shape[1:3]) / 64
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames]).astype(np.uint8)
    values = frames.astype(np.int16)
    return np.abs(values[lag:] - values[:-lag]).mean(-1) > _STIRRED


def _stride(frames: Frames) -> int:
    """Three of seventeen frames: far enough apart that the slowest motion shows through a blur."""
    return max(1, round(3 / 16 * (len(frames) - 1)))


def _still_share(frames: Frames) -> float:
    """The share of time in which next to nothing of the picture changes, from frame to frame or under its grain."""
    steps = _changed(frames, blur=0.0, lag=1).mean((1, 2)) < _STILL_AREA
    strides = _changed(frames, blur=2.5, lag=_stride(frames)).mean((1, 2)) < _STILL_AREA
    return float(max(steps.mean(), strides.mean()))


def _idle_share(frames: Frames, seen: Reading) -> float:
    """The share of objects that neither go anywhere nor change their look, whatever moves around them."""
    if not seen.objects:
        return 0.0
    lag = _stride(frames)
    changed = _changed(frames, blur=1.2, lag=lag)
    idle = 0
    for thing in seen.objects:
        inside = boxes((thing,), *frames.shape[1:3], reach=0.6)[:-lag]
        stirred = float(changed[inside].mean()) if inside.any() else 0.0
        idle += travel(thing.track) < _TRAVEL and stirred < _ALIVE
    return idle / len(seen.objects)


def motion_parts(frames: Frames, seen: Reading) -> MotionParts:
    """The parts of a film's motion quality; `frames` uint8 [F, H, W, 3], at least 5 frames of 32 pixels."""
    spike, unexplained = _unexplained(frames, seen)
    swaps, nearness = _disorder(frames)
    tracks = [o.track for o in seen.objects]
    worst_jump = max((float(surprises(t).max()) for t in tracks), default=0.0)
    worst_tremor = max((tremor(t) for t in tracks), default=0.0)
    absent = max((absent_share(t) for t in tracks), default=0.0)
    return MotionParts(
        moving=(1 - _still_share(frames)) * (1 - 0.7 * _idle_share(frames, seen)),
        steady=_softly(worst_jump, 0.24, 4) * _softly(worst_tremor - _USUAL_TREMOR, 0.12, 2),
        lasting=float(np.exp(-4 * absent)),
        single=float(np.exp(-3 * doubled_share(seen.objects))),
        seamless=_softly(spike, 0.05, 1.5),
        orderly=_softly(swaps, 0.25, 2) * float(np.exp(-0.05 * nearness)),
        warped=float(np.exp(-0.3 * unexplained)),
    )


def _code_digest() -> str:
    """The hash of all code that a score comes from."""
    sources = [inspect.getsource(m) for m in (flow, reading, trajectories, inspect.getmodule(motion_parts))]  # type: ignore[arg-type]
    return hashlib.sha256("".join(sources).encode()).hexdigest()


class MotionQuality:
    """A Reward over `reader`'s readings. The value is the mean over the film and its mirror image played backwards.

    Both deserve the same, since how plausible a motion is depends neither on its side nor on its sense; how far they
    are apart tells what the reader and the flow got wrong, and half of it is the standard error of their mean. Parts
    are those of MotionParts, with VBench's `temporal_flickering` and `dynamic_degree`.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.name = f"motion-{reader.name}"
        self.digest = hashlib.sha256(f"{_code_digest()} {reader.digest}".encode()).hexdigest()[:16]
        self.dimension = Dimension.MOTION_QUALITY

    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film; RewardError for a film of fewer than 5 frames or 32 pixels, or that cannot be read."""
        for film in films:
            shape = film.frames.shape
            if len(shape) != 4 or shape[3] != 3 or shape[0] < _LEAST_FRAMES or min(shape[1:3]) < _LEAST_SIDE:
                why = f"motion is told of uint8 [F, H, W, 3] with at least 5 frames of 32 pixels, it is {list(shape)}"
                raise RewardError(self.name, film.name, why)
        views = [v for f in films for v in (f.frames, np.ascontiguousarray(f.frames[::-1, :, ::-1]))]
        try:
            readings = self.reader.read(views)
        except ValueError as error:
            raise RewardError(self.name, ", ".join(f.name for f in films), str(error)) from error
        found = [motion_parts(v, r) for v, r in zip(views, readings, strict=True)]
        return [self._joined(f, a, b) for f, a, b in zip(films, found[::2], found[1::2], strict=True)]

    @staticmethod
    def _joined(film: Film, one: MotionParts, other: MotionParts) -> Score:
        beside = vbench_motion(film.frames, film.fps)
        parts = {f.name: (getattr(one, f.name) + getattr(other, f.name)) / 2 for f in fields(one)}
        return Score(
            value=(one.value + other.value) / 2,
            noise=abs(one.value - other.value) / 2,
            parts={
                **parts,
                "temporal_flickering": beside.temporal_flickering,
                "dynamic_degree": beside.dynamic_degree,
            },
        )
