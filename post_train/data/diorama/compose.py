"""Chooses what a clip shows: objects, actions that are plainly seen, place, weather and camera."""

from __future__ import annotations

import numpy as np

from post_train.data.diorama.holdout import held_out_triple
from post_train.data.diorama.motion import Stage, make_track, rolls
from post_train.data.diorama.observe import apart, inside_frame, seen_action
from post_train.data.diorama.record import Scene, SceneObject, Scenery, Split, Track
from post_train.data.diorama.vocabulary import (
    ACTIONS_OF,
    COLOURS,
    OBJECTS,
    Action,
    Camera,
    Ground,
    Kind,
    Sky,
    Weather,
    grounds_of,
    weathers_of,
)

NUM_TEXTURES = 4
ZOOM_RANGE = 1.25
_TWO_OBJECTS = 0.35
_SHAPE_WEIGHT = 4.0  # the shaded shapes come in eight colours and each colour must be seen often enough
_CAMERA_ODDS = {
    Camera.STATIC: 0.5,
    Camera.PAN_LEFT: 0.125,
    Camera.PAN_RIGHT: 0.125,
    Camera.ZOOM_IN: 0.125,
    Camera.ZOOM_OUT: 0.125,
}
# What people ask for most is shown most: travel, then the turns and jumps; every kind can grow and shrink already.
_ACTION_WEIGHTS = {
    Action.MOVE_LEFT: 1.6,
    Action.MOVE_RIGHT: 1.6,
    Action.SPIN: 1.3,
    Action.GROW: 0.6,
    Action.SHRINK: 0.6,
}
_MARGIN = 0.01
_TRIES = 200


def zoom_at(camera: Camera, t: float | np.ndarray) -> float | np.ndarray:
    """The camera's magnification at `t` in [0, 1] of the clip."""
    if camera is Camera.ZOOM_IN:
        return 1 + (ZOOM_RANGE - 1) * t
    if camera is Camera.ZOOM_OUT:
        return ZOOM_RANGE - (ZOOM_RANGE - 1) * t
    return 1.0 + 0.0 * t


def _zoomed(track: Track, camera: Camera) -> Track:
    """`track` as the zooming camera sees it; pans follow the objects and move only the scenery."""
    zoom = np.asarray(zoom_at(camera, np.linspace(0, 1, len(track.x), dtype=np.float32)), np.float32)
    return Track(
        x=(track.x - 0.5) * zoom + 0.5,
        y=(track.y - 0.5) * zoom + 0.5,
        size=track.size * zoom,
        angle=track.angle,
        height=track.height * zoom,
    )


def _pick_names(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct classes, the later ones of a kind that can share a ground with the first."""
    names = list(OBJECTS)
    weights = np.array([_SHAPE_WEIGHT if OBJECTS[n].coloured else 1.0 for n in names])
    chosen = [str(rng.choice(names, p=weights / weights.sum()))]
    home = set(grounds_of(OBJECTS[chosen[0]].kind))
    while len(chosen) < count:
        name = str(rng.choice(names, p=weights / weights.sum()))
        if name not in chosen and home & set(grounds_of(OBJECTS[name].kind)):
            chosen.append(name)
    return chosen


def _pick_scenery(rng: np.random.Generator, names: list[str]) -> Scenery:
    shared = [g for g in Ground if all(g in grounds_of(OBJECTS[n].kind) for n in names)]
    ground = shared[rng.integers(len(shared))]
    sky = list(Sky)[rng.integers(len(Sky))]
    weathers = weathers_of(ground, sky)
    return Scenery(
        ground=ground,
        sky=sky,
        weather=weathers[rng.integers(len(weathers))] if rng.random() < 0.7 else Weather.NONE,
        hills=bool(rng.random() < 0.5),
        horizon=float(rng.uniform(0.48, 0.6)),
        cloud_texture=int(rng.integers(NUM_TEXTURES)),
        ground_texture=int(rng.integers(NUM_TEXTURES)),
        ridge=int(rng.integers(NUM_TEXTURES)),
    )


def _stage(rng: np.random.Generator, kind: Kind, lane: int, lanes: int) -> Stage:
    size = rng.uniform(0.36, 0.46) if lanes == 1 else rng.uniform(0.26, 0.31)
    flying = kind is Kind.FLYER
    foot = rng.uniform(0.48, 0.58) if flying else rng.uniform(0.8, 0.92)
    width = 1.0 / lanes
    return Stage(
        left=lane * width + 0.02,
        right=(lane + 1) * width - 0.02,
        rest_y=foot - size / 2,
        size=size,
        flying=flying,
        rolls=rolls(kind),
    )


def _pick_action(rng: np.random.Generator, kind: Kind) -> Action:
    actions = ACTIONS_OF[kind]
    weights = np.array([_ACTION_WEIGHTS.get(a, 1.0) for a in actions])
    return actions[rng.choice(len(actions), p=weights / weights.sum())]


def _mirrored(rng: np.random.Generator, name: str, action: Action) -> bool:
    """Animals and vehicles look where they go; what has no side is never mirrored."""
    if not OBJECTS[name].faces_left:
        return False
    if action in {Action.MOVE_RIGHT, Action.HOP_RIGHT}:
        return True
    if action in {Action.MOVE_LEFT, Action.HOP_LEFT}:
        return False
    return bool(rng.random() < 0.5)


def _place(
    rng: np.random.Generator, name: str, lane: int, lanes: int, camera: Camera, num_frames: int, split: Split
) -> SceneObject | None:
    """One object with an action that its screen track plainly shows, or None when this draw does not show one."""
    kind = OBJECTS[name].kind
    colour = str(rng.choice(list(COLOURS))) if OBJECTS[name].coloured else None
    planned = _pick_action(rng, kind)
    stage = _stage(rng, kind, lane, lanes)
    track = _zoomed(make_track(planned, stage, num_frames, rng), camera)
    seen = seen_action(track)
    if seen is None or seen is not planned:
        return None
    # Scraped clips are badly framed now and then: up to a third of the object leaves the picture.
    margin = _MARGIN if split is Split.CLEAN or rng.random() < 0.8 else -0.12
    if not inside_frame(track, margin):
        return None
    return SceneObject(name=name, colour=colour, action=seen, track=track, mirrored=_mirrored(rng, name, planned))


def _objects(
    rng: np.random.Generator, names: list[str], camera: Camera, num_frames: int, split: Split
) -> tuple[SceneObject, ...]:
    placed: list[SceneObject] = []
    for lane, name in enumerate(names):
        for _ in range(_TRIES):
            candidate = _place(rng, name, lane, len(names), camera, num_frames, split)
            if candidate is not None and all(apart(candidate.track, other.track) for other in placed):
                placed.append(candidate)
                break
        else:
            raise AssertionError(f"no action of {name!r} shows under {camera} in {_TRIES} draws")
    return tuple(placed)


def _is_held_out(scene: Scene) -> bool:
    return any(held_out_triple(o.name, o.action, scene.scenery.ground) for o in scene.objects)


def compose(rng: np.random.Generator, num_frames: int, split: Split, *, held_out: bool = False) -> Scene:
    """A scene in which every object plainly shows its action, whole on the screen (clean) or nearly (wild).

    No object does on its ground what is held out from training, or, with `held_out`, at least one of them does.
    """
    while True:
        scene = _draw_scene(rng, num_frames, split)
        if _is_held_out(scene) is held_out:
            return scene


def _draw_scene(rng: np.random.Generator, num_frames: int, split: Split) -> Scene:
    count = 2 if rng.random() < _TWO_OBJECTS else 1
    names = _pick_names(rng, count)
    camera = Camera(str(rng.choice([c.value for c in _CAMERA_ODDS], p=list(_CAMERA_ODDS.values()))))
    scenery = _pick_scenery(rng, names)
    return Scene(objects=_objects(rng, names, camera, num_frames, split), scenery=scenery, camera=camera)
