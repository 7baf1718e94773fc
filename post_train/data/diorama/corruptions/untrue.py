"""Corruptions that make a clip's caption untrue: the scene is drawn again with one thing of it changed.

Legend: F frames, S side of the frame in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from post_train.data.diorama.corruptions.base import Frames
from post_train.data.diorama.record import Clip, Scene, SceneObject
from post_train.data.diorama.render import render
from post_train.data.diorama.vocabulary import COLOURS, OBJECTS, Action, Camera, Ground, Sky, Weather

T = TypeVar("T")

# Played backwards, these become another action; a spin, a bounce and a sway remain what they are.
DIRECTED = frozenset(
    {
        Action.MOVE_LEFT,
        Action.MOVE_RIGHT,
        Action.HOP_LEFT,
        Action.HOP_RIGHT,
        Action.GROW,
        Action.SHRINK,
        Action.RISE,
        Action.FALL,
    }
)
_SIDEWAYS = frozenset({Action.MOVE_LEFT, Action.MOVE_RIGHT, Action.HOP_LEFT, Action.HOP_RIGHT})


def redraw(clip: Clip, scene: Scene) -> Frames:
    """`scene` drawn in the size and length of `clip`."""
    return render(scene, clip.frames.shape[1], len(clip.frames))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, evenly."""
    return options[int(rng.integers(len(options)))]


def with_object(scene: Scene, index: int, thing: SceneObject) -> Scene:
    """`scene` with its object number `index` replaced by `thing`."""
    return replace(scene, objects=(*scene.objects[:index], thing, *scene.objects[index + 1 :]))


def other_class(rng: np.random.Generator, thing: SceneObject, taken: Sequence[str]) -> SceneObject:
    """`thing` as an object of another class that is not among `taken`, on the same track."""
    name = pick(rng, [n for n in OBJECTS if n not in taken])
    colour = pick(rng, list(COLOURS)) if OBJECTS[name].coloured else None
    return replace(thing, name=name, colour=colour, mirrored=thing.mirrored and OBJECTS[name].faces_left)


def held(frames: Frames, strength: float) -> Frames:
    """The picture stands still for the last share `strength` of the film; at 1 it never moves."""
    last = round((len(frames) - 1) * (1 - strength))
    return frames[np.minimum(np.arange(len(frames)), last)]


def frozen(clip: Clip, strength: float, _rng: np.random.Generator) -> Frames:
    """As `held`."""
    return held(clip.frames, strength)


def backwards(clip: Clip, _strength: float, _rng: np.random.Generator) -> Frames | None:
    """The clip from its end to its beginning, where an object then does something else."""
    if not any(o.action in DIRECTED for o in clip.scene.objects):
        return None
    return clip.frames[::-1].copy()


def mirrored(clip: Clip, _strength: float, _rng: np.random.Generator) -> Frames | None:
    """Left and right change places, where an object goes left or right."""
    if not any(o.action in _SIDEWAYS for o in clip.scene.objects):
        return None
    return clip.frames[:, :, ::-1].copy()


def wrong_colour(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames | None:
    """One coloured object in another colour."""
    coloured = [i for i, o in enumerate(clip.scene.objects) if o.colour is not None]
    if not coloured:
        return None
    index = pick(rng, coloured)
    thing = clip.scene.objects[index]
    colour = pick(rng, [c for c in COLOURS if c != thing.colour])
    return redraw(clip, with_object(clip.scene, index, replace(thing, colour=colour)))


def replaced(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames:
    """One object becomes one of another class."""
    index = int(rng.integers(len(clip.scene.objects)))
    thing = other_class(rng, clip.scene.objects[index], [o.name for o in clip.scene.objects])
    return redraw(clip, with_object(clip.scene, index, thing))


def removed(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames:
    """One object is not there."""
    index = int(rng.integers(len(clip.scene.objects)))
    objects = clip.scene.objects
    return redraw(clip, replace(clip.scene, objects=objects[:index] + objects[index + 1 :]))


def wrong_ground(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames:
    """Another ground."""
    place = clip.scene.scenery
    ground = pick(rng, [g for g in Ground if g is not place.ground])
    return redraw(clip, replace(clip.scene, scenery=replace(place, ground=ground)))


def wrong_sky(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames:
    """Another sky, and with it another light."""
    place = clip.scene.scenery
    sky = pick(rng, [s for s in Sky if s is not place.sky])
    return redraw(clip, replace(clip.scene, scenery=replace(place, sky=sky)))


def wrong_weather(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames | None:
    """What should fall does not, or something else does. Of fair weather no caption tells: nothing makes it untrue."""
    place = clip.scene.scenery
    if place.weather is Weather.NONE:
        return None
    weather = pick(rng, [w for w in Weather if w is not place.weather])
    return redraw(clip, replace(clip.scene, scenery=replace(place, weather=weather)))


def wrong_camera(clip: Clip, _strength: float, rng: np.random.Generator) -> Frames | None:
    """The scenery moves as another camera would show it; the objects keep their places on the screen.

    Of a static camera no caption need tell: nothing makes it untrue.
    """
    if clip.scene.camera is Camera.STATIC:
        return None
    camera = pick(rng, [c for c in Camera if c is not clip.scene.camera])
    return redraw(clip, replace(clip.scene, camera=camera))
