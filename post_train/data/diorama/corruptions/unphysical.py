"""Corruptions that break physics: things that jump, vanish, double or change their nature, and time out of order.

Legend: F frames, S side of the frame in pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from post_train.data.diorama.corruptions.base import Frames
from post_train.data.diorama.corruptions.untrue import other_class, pick, redraw, with_object
from post_train.data.diorama.record import Clip, SceneObject


def _one(clip: Clip, rng: np.random.Generator) -> tuple[int, SceneObject]:
    index = int(rng.integers(len(clip.scene.objects)))
    return index, clip.scene.objects[index]


def _middle(rng: np.random.Generator, frames: int) -> int:
    """A frame well inside the clip, so that there is a before and an after."""
    return int(rng.integers(max(2, frames // 4), frames - max(2, frames // 4) + 1))


def _span(rng: np.random.Generator, frames: int, share: float) -> slice:
    """About `share` of the frames, at least two, with at least two before them and two after."""
    length = min(frames - 4, max(2, round(share * (frames - 4))))
    start = int(rng.integers(2, frames - 1 - length))
    return slice(start, start + length)


def _room(thing: SceneObject, since: int) -> list[tuple[float, float]]:
    """How far the object can be moved left and right, and up and down, from frame `since` on: (lowest, highest)."""
    track = thing.track
    half = track.size[since:] / 2
    return [(float((half - v[since:]).max()), float((1 - half - v[since:]).min())) for v in (track.x, track.y)]


def _moved(thing: SceneObject, since: int, dx: float, dy: float) -> SceneObject:
    late = (np.arange(len(thing.track.x)) >= since).astype(np.float32)
    track = replace(
        thing.track,
        x=(thing.track.x + np.float32(dx) * late).astype(np.float32),
        y=(thing.track.y + np.float32(dy) * late).astype(np.float32),
    )
    return replace(thing, track=track)


def _aside(thing: SceneObject, since: int, rng: np.random.Generator, distance: float) -> tuple[float, float] | None:
    """A shift of about `distance` (fraction of the side) that stays in the picture; None when no direction has room."""
    (left, right), (up, down) = _room(thing, since)
    shifts = [(-distance, 0.0), (distance, 0.0), (0.0, -distance), (0.0, distance)]
    room = (-left, right, -up, down)
    fitting = [s for s, r in zip(shifts, room, strict=True) if r >= distance]
    return pick(rng, fitting) if fitting else None


def teleport(clip: Clip, strength: float, rng: np.random.Generator) -> Frames | None:
    """In mid clip an object is suddenly 0.2 to 0.45 of the side elsewhere, and goes on from there."""
    since, (index, thing) = _middle(rng, len(clip.frames)), _one(clip, rng)
    for distance in (0.2 + 0.25 * strength, 0.2 + 0.12 * strength, 0.2):
        shift = _aside(thing, since, rng, distance)
        if shift is not None:
            return redraw(clip, with_object(clip.scene, index, _moved(thing, since, *shift)))
    return None


def vanish(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """An object is gone for some frames and comes back."""
    index, _ = _one(clip, rng)
    objects = clip.scene.objects
    without = redraw(clip, replace(clip.scene, objects=objects[:index] + objects[index + 1 :]))
    frames, gone = clip.frames.copy(), _span(rng, len(clip.frames), 0.7 * strength)
    frames[gone] = without[gone]
    return frames


def doubling(clip: Clip, strength: float, rng: np.random.Generator) -> Frames | None:
    """In mid clip a second one of an object appears beside it, for some frames."""
    _, thing = _one(clip, rng)
    for distance in (0.5, 0.4, 0.3, 0.2):
        shift = _aside(thing, 0, rng, distance)
        if shift is not None:
            twice = redraw(clip, replace(clip.scene, objects=(*clip.scene.objects, _moved(thing, 0, *shift))))
            frames, there = clip.frames.copy(), _span(rng, len(clip.frames), 0.7 * strength)
            frames[there] = twice[there]
            return frames
    return None


def jitter(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """An object trembles: its place is off by up to 0.03 to 0.12 of the side, anew on each frame."""
    index, thing = _one(clip, rng)
    reach = 0.03 + 0.09 * strength
    offsets = rng.uniform(-reach, reach, (2, len(clip.frames))).astype(np.float32)
    track = replace(thing.track, x=thing.track.x + offsets[0], y=thing.track.y + offsets[1])
    return redraw(clip, with_object(clip.scene, index, replace(thing, track=track)))


def shuffle(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """A share of the frames (at least four) changes places at random, none of them staying where it was."""
    count = len(clip.frames)
    chosen = np.sort(rng.choice(count, max(4, round(strength * count)), replace=False))
    order = np.arange(count)
    # A random cycle through the chosen frames leaves none of them in its place.
    cycle = rng.permutation(chosen)
    order[cycle] = np.roll(cycle, 1)
    return clip.frames[order]


def morph(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """In mid clip an object turns into one of another class: at once at strength 1, over some frames below it."""
    index, thing = _one(clip, rng)
    other = other_class(rng, thing, [o.name for o in clip.scene.objects])
    after = redraw(clip, with_object(clip.scene, index, other)).astype(np.float32)
    middle, width = _middle(rng, len(clip.frames)) - 0.5, 1e-3 + 4 * (1 - strength)
    share = np.clip((np.arange(len(clip.frames)) - middle) / width + 0.5, 0, 1).astype(np.float32)[:, None, None, None]
    return ((1 - share) * clip.frames + share * after + 0.5).astype(np.uint8)


def rewind(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """In mid clip time jumps back and plays the same again."""
    count = len(clip.frames)
    since = _middle(rng, count)
    back = max(3, round(strength * since))
    order = np.arange(count)
    order[since:] = (order[since:] - back) % count
    return clip.frames[order]


def stutter(clip: Clip, strength: float, _rng: np.random.Generator) -> Frames:
    """Time stands for some frames and then catches up, over and over."""
    hold = 2 + round(4 * strength)
    return clip.frames[np.arange(len(clip.frames)) // hold * hold]


def pulsing(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """An object's size changes from frame to frame by up to 10 to 40 %."""
    index, thing = _one(clip, rng)
    reach = 0.1 + 0.3 * strength
    size = thing.track.size * rng.uniform(1 - reach, 1 + reach / 2, len(clip.frames)).astype(np.float32)
    track = replace(thing.track, size=size)
    return redraw(clip, with_object(clip.scene, index, replace(thing, track=track)))


def cut(clip: Clip, strength: float, rng: np.random.Generator) -> Frames:
    """In mid clip the whole picture is suddenly shifted, as by a cut: by 0.1 to 0.5 of the side."""
    since = _middle(rng, len(clip.frames))
    side = clip.frames.shape[1]
    shift = round(side * (0.1 + 0.4 * strength)) * (1 if rng.random() < 0.5 else -1)
    frames = clip.frames.copy()
    frames[since:] = np.roll(frames[since:], shift, axis=2)
    return frames
