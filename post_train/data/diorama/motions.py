"""Which action a verb names with where it leads: `goes` with `up` is to rise, `hops` with `left` to hop left."""

from __future__ import annotations

from post_train.data.diorama.lexicon import Verb, Way
from post_train.data.diorama.vocabulary import Action, Camera

# What a verb says with no way told; those that are missing say nothing without one.
_ALONE = {
    Verb.BOUNCE: Action.BOUNCE,
    Verb.SPIN: Action.SPIN,
    Verb.GROW: Action.GROW,
    Verb.SHRINK: Action.SHRINK,
    Verb.RISE: Action.RISE,
    Verb.FALL: Action.FALL,
    Verb.SWAY: Action.SWAY,
}
_SCALING = {
    Way.CLOSER: Action.GROW,
    Way.LARGER: Action.GROW,
    Way.AWAY: Action.SHRINK,
    Way.SMALLER: Action.SHRINK,
}
_TRAVEL = {
    Way.LEFT: Action.MOVE_LEFT,
    Way.RIGHT: Action.MOVE_RIGHT,
    Way.UP: Action.RISE,
    Way.DOWN: Action.FALL,
    Way.UP_AND_DOWN: Action.BOUNCE,
    Way.SIDE_TO_SIDE: Action.SWAY,
    Way.CLOSER: Action.GROW,
    Way.AWAY: Action.SHRINK,
}
_IN_ARCS = {
    Way.LEFT: Action.HOP_LEFT,
    Way.RIGHT: Action.HOP_RIGHT,
    Way.UP_AND_DOWN: Action.BOUNCE,
    Way.IN_PLACE: Action.BOUNCE,
}
_WITH_WAY: dict[Verb, dict[Way, Action]] = {
    Verb.GO: _TRAVEL,
    Verb.HOP: _IN_ARCS,
    Verb.BOUNCE: {**_IN_ARCS, Way.UP: Action.BOUNCE},
    Verb.SPIN: {Way.IN_PLACE: Action.SPIN},
    Verb.TURN: {Way.IN_PLACE: Action.SPIN},
    Verb.GROW: {**_SCALING, Way.AWAY: Action.SHRINK},
    Verb.SHRINK: {Way.AWAY: Action.SHRINK, Way.SMALLER: Action.SHRINK},
    Verb.GET: _SCALING,
    Verb.COME: {**_TRAVEL},
    Verb.RISE: {Way.UP: Action.RISE},
    Verb.FALL: {Way.DOWN: Action.FALL},
    Verb.SWAY: {Way.SIDE_TO_SIDE: Action.SWAY, Way.IN_PLACE: Action.SWAY},
}
# Verbs that a person leaves without a direction: the film may choose one, so that nothing is asked for.
OPEN = frozenset({Verb.GO, Verb.HOP, Verb.COME})

_CAMERA = {
    Way.LEFT: Camera.PAN_LEFT,
    Way.RIGHT: Camera.PAN_RIGHT,
    Way.CLOSER: Camera.ZOOM_IN,
    Way.AWAY: Camera.ZOOM_OUT,
}
_CAMERA_VERBS = frozenset({Verb.PAN, Verb.GO, Verb.GET, Verb.COME})


def action_of(verb: Verb, way: Way | None) -> Action | None:
    """The action that `verb` names, or None where this world has no such action or the way is left open."""
    if way is None:
        return _ALONE.get(verb)
    return _WITH_WAY.get(verb, {}).get(way)


def camera_of(verb: Verb, way: Way | None) -> Camera | None:
    """What a camera does of which `verb` is told, or None where this world's camera cannot."""
    if verb is Verb.STAND:
        return Camera.STATIC if way is None else None
    return _CAMERA.get(way) if way is not None and verb in _CAMERA_VERBS else None
