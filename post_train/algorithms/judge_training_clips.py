"""Clips that judges learn from: true ones, and ones that are changed so that a lazy reader would be fooled.

The truth is always what is seen. A clip played backwards has the mirrored action; one that stands still has none; an
object may be taken away, doubled, turned into another or put where it never belongs, so that no class, place or action
can be guessed from another. Legend: F frames, S objects of a clip (padded), side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.compose import compose
from post_train.data.diorama.observe import seen_action
from post_train.data.diorama.record import Scene, SceneObject, Split, Track
from post_train.data.diorama.render import render
from post_train.data.diorama.vocabulary import COLOURS, OBJECTS, Camera, Ground, Sky, Weather
from post_train.data.diorama.wild import weather_the_web
from post_train.data.diorama.world import VERSION
from post_train.rewards.reader import ACTIONS, CLASSES, COLOUR_NAMES, PLACE

SLOTS = 3
UNKNOWN = -1
Generator = np.random.Generator
_STREAM = 31  # keeps these random numbers apart from the world's own
_SCRAMBLED = 0.35
_REVERSED = 0.2
_BACKWARD = {
    Camera.STATIC: Camera.STATIC,
    Camera.PAN_LEFT: Camera.PAN_RIGHT,
    Camera.PAN_RIGHT: Camera.PAN_LEFT,
    Camera.ZOOM_IN: Camera.ZOOM_OUT,
    Camera.ZOOM_OUT: Camera.ZOOM_IN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a clip shows, as numbers: `objects` int64 [S, 3] (class, colour, action), `tracks` float32 [S, 4, F].

    A track is x, y, size and presence, a slot without object has presence 0. `place` int64 [5] follows PLACE. UNKNOWN
    is what has no one answer: a sprite's colour, or what an object does that is cut off or put elsewhere in the middle.
    """

    objects: NDArray[np.int64]
    tracks: NDArray[np.float32]
    place: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Take:
    """A clip in the making; `shown` [F] is when an object is on the screen, `plain` whether its action can be told."""

    frames: NDArray[np.uint8]
    scene: Scene
    shown: tuple[NDArray[np.float32], ...]
    plain: tuple[bool, ...]


def _cut(track: Track, at: NDArray[np.int64]) -> Track:
    """The track with frames taken at `at`."""
    return Track(x=track.x[at], y=track.y[at], size=track.size[at], angle=track.angle[at], height=track.height[at])


def _with_tracks(scene: Scene, at: NDArray[np.int64]) -> Scene:
    return replace(scene, objects=tuple(replace(o, track=_cut(o.track, at)) for o in scene.objects))


def _another(rng: Generator, thing: SceneObject, taken: set[str]) -> SceneObject:
    """`thing` with another class, on the same track."""
    free = [n for n in OBJECTS if n not in taken]
    shapes = 3.0  # balls and boxes more often: each colour must be seen
    weights = np.array([shapes if OBJECTS[n].coloured else 1.0 for n in free])
    name = str(rng.choice(free, p=weights / weights.sum()))
    colour = str(rng.choice(list(COLOURS))) if OBJECTS[name].coloured else None
    return replace(thing, name=name, colour=colour, mirrored=bool(rng.random() < 0.5))


def _scrambled(rng: Generator, scene: Scene) -> Scene:
    """Any class on any track over any ground under any sky: nothing can be guessed from anything else."""
    objects: list[SceneObject] = []
    for thing in scene.objects:
        objects.append(_another(rng, thing, {o.name for o in objects}))
    place = replace(
        scene.scenery,
        ground=list(Ground)[rng.integers(len(Ground))],
        sky=list(Sky)[rng.integers(len(Sky))],
        weather=list(Weather)[rng.integers(len(Weather))],
    )
    return replace(scene, objects=tuple(objects), scenery=place)


def _take(scene: Scene, side: int, num_frames: int) -> _Take:
    count = len(scene.objects)
    return _Take(
        frames=render(scene, side, num_frames),
        scene=scene,
        shown=tuple(np.ones(num_frames, np.float32) for _ in range(count)),
        plain=(True,) * count,
    )


def _plain(_rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    return _take(scene, side, num_frames)


def _frozen(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """One frame for ever: no action, no camera."""
    at = np.full(num_frames, rng.integers(num_frames))
    take = _take(scene, side, num_frames)
    still = replace(_with_tracks(scene, at), camera=Camera.STATIC)
    return replace(take, frames=take.frames[at], scene=still)


def _still(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """Objects that stand still, or are slowed, while the rest goes on."""
    first, rate = int(rng.integers(num_frames)), float(rng.choice([0.0, 0.0, 0.15, 0.4]))
    at = np.clip(first + np.round(rate * np.arange(num_frames)), 0, num_frames - 1).astype(np.int64)
    return _take(_with_tracks(scene, at), side, num_frames)


def _fewer(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """One object less; a scene of one becomes an empty one."""
    objects = list(scene.objects)
    del objects[rng.integers(len(objects))]
    return _take(replace(scene, objects=tuple(objects)), side, num_frames)


def _doubled(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """Two objects of one class; shapes now and then in two colours."""
    if len(scene.objects) < 2:
        return _take(scene, side, num_frames)
    first, second = scene.objects
    colour = first.colour if rng.random() < 0.5 or first.colour is None else str(rng.choice(list(COLOURS)))
    return _take(replace(scene, objects=(first, replace(second, name=first.name, colour=colour))), side, num_frames)


def _morph(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """The first object turns into another in the middle of the clip."""
    first, rest = scene.objects[0], scene.objects[1:]
    turn = int(rng.integers(4, num_frames - 3)) if num_frames > 8 else num_frames // 2
    second = _another(rng, first, {o.name for o in scene.objects})
    before = _take(scene, side, num_frames)
    after = render(replace(scene, objects=(second, *rest)), side, num_frames)
    early = (np.arange(num_frames) < turn).astype(np.float32)
    return _Take(
        frames=np.concatenate([before.frames[:turn], after[turn:]]),
        scene=replace(scene, objects=(first, second, *rest)),
        shown=(early, 1 - early, *before.shown[1:]),
        plain=(False, False, *before.plain[1:]),
    )


def _vanish(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """The first object is gone for some frames, or for good."""
    take = _take(scene, side, num_frames)
    start = int(rng.integers(1, num_frames - 2))
    end = min(num_frames, start + int(rng.integers(2, 7))) if rng.random() < 0.6 else num_frames
    empty = render(replace(scene, objects=scene.objects[1:]), side, num_frames)
    shown = np.ones(num_frames, np.float32)
    shown[start:end] = 0
    frames = np.where(shown[:, None, None, None] > 0, take.frames, empty)
    short = end < num_frames and end - start <= 0.25 * num_frames
    return replace(take, frames=frames, shown=(shown, *take.shown[1:]), plain=(short, *take.plain[1:]))


def _teleport(rng: Generator, scene: Scene, side: int, num_frames: int) -> _Take:
    """The first object is all at once somewhere else."""
    first, rest = scene.objects[0], scene.objects[1:]
    later = (np.arange(num_frames) >= rng.integers(2, num_frames - 1)).astype(np.float32)
    half, track = first.track.size / 2, first.track
    low, high = float((track.x - half).min()), float((track.x + half).max())
    jump = np.float32(rng.uniform(-low, 1 - high) if high - low < 1 else 0.0)
    moved = replace(first, track=replace(track, x=np.clip(track.x + jump * later, 0, 1).astype(np.float32)))
    take = _take(replace(scene, objects=(moved, *rest)), side, num_frames)
    return replace(take, plain=(abs(float(jump)) < 0.05, *take.plain[1:]))


_Change = Callable[[Generator, Scene, int, int], _Take]
_CHANGES: tuple[tuple[_Change, float], ...] = (
    (_plain, 0.6),
    (_frozen, 0.05),
    (_still, 0.09),
    (_fewer, 0.06),
    (_doubled, 0.08),
    (_morph, 0.04),
    (_vanish, 0.05),
    (_teleport, 0.03),
)


def _backward(take: _Take) -> _Take:
    scene = _with_tracks(take.scene, np.arange(len(take.frames))[::-1])
    return replace(
        take,
        frames=take.frames[::-1],
        scene=replace(scene, camera=_BACKWARD[scene.camera]),
        shown=tuple(s[::-1] for s in take.shown),
    )


def truth_of(scene: Scene, shown: tuple[NDArray[np.float32], ...] = (), plain: tuple[bool, ...] = ()) -> Truth:
    """The truth of `scene`, all of it on the screen all the time unless `shown` and `plain` say otherwise."""
    frames = len(scene.objects[0].track.x) if scene.objects else 0
    return _truth(scene, shown or (np.ones(frames, np.float32),) * len(scene.objects), plain, frames)


def _truth(scene: Scene, shown: tuple[NDArray[np.float32], ...], plain: tuple[bool, ...], num_frames: int) -> Truth:
    objects = np.full((SLOTS, 3), UNKNOWN, np.int64)
    objects[:, 0] = 0
    tracks = np.zeros((SLOTS, 4, num_frames), np.float32)
    tracks[:, :3] = np.array([0.5, 0.5, 0.1], np.float32)[:, None]
    for slot, (thing, seen) in enumerate(zip(scene.objects, shown, strict=True)):
        told = not plain or plain[slot]
        objects[slot] = (
            CLASSES.index(thing.name),
            UNKNOWN if thing.colour is None else COLOUR_NAMES.index(thing.colour),
            ACTIONS.index(seen_action(thing.track)) if told else UNKNOWN,
        )
        tracks[slot] = thing.track.x, thing.track.y, thing.track.size, seen
    place = scene.scenery
    values = (place.ground, place.sky, place.weather, scene.camera, place.hills)
    return Truth(
        objects=objects,
        tracks=tracks,
        place=np.array([options.index(v) for options, v in zip(PLACE.values(), values, strict=True)], np.int64),
    )


def judge_clip(seed: int, *, side: int, num_frames: int) -> tuple[NDArray[np.uint8], Truth]:
    """Frames uint8 [F, side, side, 3] and their truth: a pure function of its arguments and the world's VERSION."""
    rng = np.random.default_rng((VERSION, _STREAM, seed))
    split = Split.WILD if rng.random() < 0.5 else Split.CLEAN
    scene = compose(rng, num_frames, split)
    if rng.random() < _SCRAMBLED:
        scene = _scrambled(rng, scene)
    change = _CHANGES[rng.choice(len(_CHANGES), p=[p for _, p in _CHANGES])][0]
    take = change(rng, scene, side, num_frames)
    if rng.random() < _REVERSED:
        take = _backward(take)
    frames = weather_the_web(rng, take.frames) if split is Split.WILD else take.frames
    return np.ascontiguousarray(frames), _truth(take.scene, take.shown, take.plain, num_frames)
