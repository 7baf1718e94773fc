"""What a track is seen to be: the action is read off the screen, never taken from the plan that made the track."""

from __future__ import annotations

import numpy as np

from post_train.data.diorama.record import Track
from post_train.data.diorama.vocabulary import Action

# Thresholds in fractions of the frame's side, ratios and radians: far enough from each other that a track
# which passes one of them is plainly that action to the eye.
_TRAVEL = 0.14
_CLIMB = 0.2
_SCALING = 1.5
_TURN = 4.5
_ARC = 0.08


def _reversals(values: np.ndarray, least: float) -> int:
    """How often `values` turns back by at least `least` (hysteresis, so that noise does not count)."""
    extreme, direction, count = float(values[0]), 0, 0
    for value in values[1:].astype(float):
        step = value - extreme
        if direction == 0:
            if abs(step) >= least:
                direction, extreme = (1 if step > 0 else -1), value
        elif step * direction > 0:
            extreme = value
        elif abs(step) >= least:
            direction, extreme, count = -direction, value, count + 1
    return count


def seen_action(track: Track) -> Action | None:
    """The one action that `track` shows, or None when it shows none of them plainly (or two at once)."""
    dx = float(track.x[-1] - track.x[0])
    dy = float(track.y[-1] - track.y[0])
    growth = float(track.size[-1] / track.size[0])
    arcs = _reversals(track.y + track.size / 2, _ARC)
    if max(growth, 1 / growth) > _SCALING:
        return Action.GROW if growth > 1 else Action.SHRINK
    if abs(dx) > _TRAVEL and abs(dx) > abs(dy):
        left, right = (Action.HOP_LEFT, Action.HOP_RIGHT) if arcs >= 2 else (Action.MOVE_LEFT, Action.MOVE_RIGHT)
        return right if dx > 0 else left
    if abs(dy) > _CLIMB and arcs == 0:
        return Action.FALL if dy > 0 else Action.RISE
    return _action_in_place(track, arcs)


def _action_in_place(track: Track, arcs: int) -> Action | None:
    """What an object does that ends where it began."""
    if arcs >= 2:
        return Action.BOUNCE
    if abs(float(track.angle[-1] - track.angle[0])) > _TURN:
        return Action.SPIN
    return Action.SWAY if _reversals(track.x, 0.05) >= 1 else None


def inside_frame(track: Track, margin: float) -> bool:
    """Whether the object's bounding square stays inside the frame, `margin` (fraction of the side) from its edges."""
    half = track.size / 2
    low = np.minimum(track.x - half, track.y - half).min()
    high = np.maximum(track.x + half, track.y + half).max()
    return bool(low >= margin and high <= 1 - margin)


def apart(a: Track, b: Track) -> bool:
    """Whether two objects never cover one another."""
    near = (a.size + b.size) / 2
    return bool(np.all((np.abs(a.x - b.x) > near) | (np.abs(a.y - b.y) > near)))
