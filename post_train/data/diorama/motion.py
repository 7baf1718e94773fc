"""How objects move on the screen: one function an action, each giving a track over the clip.

Tracks are made directly in screen coordinates (fractions of the frame's side, y down), so that what a caption says of
an object is what is seen, whatever the camera does to the scenery behind it. Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.record import Track
from post_train.data.diorama.vocabulary import Action, Kind

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The part of the screen an object has to itself: its lane in x, and the y of its centre at rest."""

    left: float
    right: float
    rest_y: float
    size: float
    flying: bool
    rolls: bool


@dataclass(slots=True)
class _Path:
    """A track in the making; every array is float32 [F]."""

    t: Floats
    x: Floats
    y: Floats
    size: Floats
    angle: Floats

    def frozen(self, foot_y: Floats) -> Track:
        height = np.maximum(0.0, foot_y - (self.y + self.size / 2)).astype(np.float32)
        return Track(x=self.x, y=self.y, size=self.size, angle=self.angle, height=height)


def _travel(path: _Path, stage: Stage, rng: np.random.Generator, direction: int) -> None:
    """A steady run through 75 to 100 % of the lane."""
    room = stage.right - stage.left - stage.size
    distance = room * rng.uniform(0.75, 1.0)
    start = (stage.left + stage.right - direction * distance) / 2
    path.x = (start + direction * distance * path.t).astype(np.float32)
    if stage.rolls:
        path.angle = (2 * (path.x - path.x[0]) / stage.size).astype(np.float32)


def _hop(path: _Path, stage: Stage, rng: np.random.Generator, direction: int) -> None:
    """Three arcs while it travels."""
    _travel(path, stage, rng, direction)
    path.angle = np.zeros_like(path.t)
    height = rng.uniform(0.15, 0.2)
    path.y = (path.y - height * np.abs(np.sin(3 * np.pi * path.t))).astype(np.float32)


def _bounce(path: _Path, _stage: Stage, rng: np.random.Generator) -> None:
    """Two or three parabolas on the spot."""
    count = int(rng.integers(2, 4))
    phase = (path.t * count) % 1.0
    height = rng.uniform(0.26, 0.36)
    path.y = (path.y - height * 4 * phase * (1 - phase)).astype(np.float32)


def _spin(path: _Path, _stage: Stage, rng: np.random.Generator) -> None:
    """One whole turn, either way."""
    turn = 1.0 if rng.random() < 0.5 else -1.0
    path.angle = (turn * 2 * np.pi * path.t).astype(np.float32)


def _scale(path: _Path, stage: Stage, start: float, end: float) -> None:
    """The size goes from `start` to `end` times the nominal one, with the foot on the ground for what stands."""
    foot = path.y + path.size / 2
    path.size = (stage.size * (start + (end - start) * path.t)).astype(np.float32)
    if not stage.flying:
        path.y = (foot - path.size / 2).astype(np.float32)


def _lift(path: _Path, stage: Stage, rng: np.random.Generator, *, up: bool) -> None:
    """Up evenly, or down with gravity's acceleration, through 0.3 to 0.42 of the frame."""
    height = rng.uniform(0.3, 0.42)
    low = stage.rest_y + height / 2 if stage.flying else stage.rest_y
    along = path.t if up else 1 - path.t**2
    path.y = (low - height * along).astype(np.float32)


def _sway(path: _Path, stage: Stage, rng: np.random.Generator) -> None:
    """One and a half swings of position and tilt."""
    swing = np.sin(3 * np.pi * path.t)
    reach = min(rng.uniform(0.09, 0.13), (stage.right - stage.left - stage.size) / 2)
    path.x = (path.x + reach * swing).astype(np.float32)
    path.angle = (rng.uniform(0.25, 0.35) * swing).astype(np.float32)


_MOVES: dict[Action, Callable[[_Path, Stage, np.random.Generator], None]] = {
    Action.MOVE_LEFT: lambda p, s, r: _travel(p, s, r, -1),
    Action.MOVE_RIGHT: lambda p, s, r: _travel(p, s, r, 1),
    Action.HOP_LEFT: lambda p, s, r: _hop(p, s, r, -1),
    Action.HOP_RIGHT: lambda p, s, r: _hop(p, s, r, 1),
    Action.BOUNCE: _bounce,
    Action.SPIN: _spin,
    Action.GROW: lambda p, s, r: _scale(p, s, r.uniform(0.45, 0.55), r.uniform(1.15, 1.3)),
    Action.SHRINK: lambda p, s, r: _scale(p, s, r.uniform(1.15, 1.3), r.uniform(0.45, 0.55)),
    Action.RISE: lambda p, s, r: _lift(p, s, r, up=True),
    Action.FALL: lambda p, s, r: _lift(p, s, r, up=False),
    Action.SWAY: _sway,
}


def make_track(action: Action, stage: Stage, num_frames: int, rng: np.random.Generator) -> Track:
    """The track of an object that does `action` on `stage` over `num_frames` frames."""
    t = np.linspace(0, 1, num_frames, dtype=np.float32)
    flat = np.ones_like(t)
    path = _Path(
        t=t,
        x=flat * np.float32((stage.left + stage.right) / 2),
        y=flat * np.float32(stage.rest_y),
        size=flat * np.float32(stage.size),
        angle=np.zeros_like(t),
    )
    foot = path.y + path.size / 2
    _MOVES[action](path, stage, rng)
    ground = foot + 0.25 if stage.flying else foot
    return path.frozen(ground.astype(np.float32))


def rolls(kind: Kind) -> bool:
    """Whether travelling turns the object."""
    return kind is Kind.BALL
