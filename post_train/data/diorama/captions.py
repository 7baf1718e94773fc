"""Tells in words what a scene shows: the full caption, a short one, and a vague one as people type it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from post_train.data.diorama.record import Caption, Captions, Scene, SceneObject, Scenery
from post_train.data.diorama.vocabulary import (
    ACTIONS_OF,
    CAMERA_PHRASES,
    COLOUR_SYNONYMS,
    COLOURS,
    HILLS_PHRASES,
    OBJECTS,
    SKY_PHRASES,
    WEATHER_PHRASES,
    Camera,
    Ground,
    Kind,
    Sky,
    Weather,
    action_phrases,
    ground_phrases,
    with_article,
)

_CANONICAL_ODDS = 0.6
_FAULT_ODDS = 0.15


def _say(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    """The canonical phrase mostly, one of the others now and then."""
    if len(phrases) == 1 or rng.random() < _CANONICAL_ODDS:
        return phrases[0]
    return phrases[1 + int(rng.integers(len(phrases) - 1))]


def _noun(rng: np.random.Generator, thing: SceneObject) -> str:
    noun = _say(rng, (thing.name, *OBJECTS[thing.name].synonyms))
    if thing.colour is None:
        return noun
    return f"{_say(rng, (thing.colour, *COLOUR_SYNONYMS[thing.colour]))} {noun}"


def _clause(rng: np.random.Generator, thing: SceneObject) -> str:
    return f"{with_article(_noun(rng, thing))} {_say(rng, action_phrases(thing.action, thing.kind))}"


def _where(rng: np.random.Generator, scene: Scene) -> str:
    flying = all(o.kind is Kind.FLYER for o in scene.objects)
    return _say(rng, ground_phrases(scene.scenery.ground, flying=flying))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def full_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Everything that is seen: objects, actions, ground, sky, hills, weather, and the camera when it moves."""
    place = scene.scenery
    text = " and ".join(_clause(rng, o) for o in scene.objects)
    text += f" {_where(rng, scene)} {_say(rng, SKY_PHRASES[place.sky])}"
    if place.hills:
        text += f" {_say(rng, HILLS_PHRASES)}"
    if place.weather is not Weather.NONE:
        text += f", {_say(rng, WEATHER_PHRASES[place.weather])}"
    if scene.camera is not Camera.STATIC:
        text += f", {_say(rng, CAMERA_PHRASES[scene.camera])}"
    return _sentence(text)


def _short_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Objects and actions, and at most one word about the place."""
    text = " and ".join(_clause(rng, o) for o in scene.objects)
    match rng.integers(3):
        case 0:
            text += f" {_where(rng, scene)}"
        case 1:
            text += f" {_say(rng, SKY_PHRASES[scene.scenery.sky])}"
        case _:
            pass
    return text


def _vague_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A few words, as people type: nouns, perhaps the first action, no article, no place."""
    nouns = [_noun(rng, o) for o in scene.objects]
    if len(nouns) == 1 and rng.random() < 0.5:
        first = scene.objects[0]
        return f"{nouns[0]} {_say(rng, action_phrases(first.action, first.kind))}"
    return " and ".join(nouns)


def _other(rng: np.random.Generator, options: Sequence[str], not_this: str) -> str:
    rest = [o for o in options if o != not_this]
    return rest[rng.integers(len(rest))]


def _wrong_object(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str]:
    """One attribute of the first object told wrongly: its colour if it has one, else its action or class."""
    first, rest = scene.objects[0], scene.objects[1:]
    if first.colour is not None and rng.random() < 0.5:
        wrong, what = replace(first, colour=_other(rng, list(COLOURS), first.colour)), "colour"
    elif rng.random() < 0.6:
        actions = [a for a in ACTIONS_OF[first.kind] if a is not first.action]
        wrong, what = replace(first, action=actions[rng.integers(len(actions))]), "action"
    else:
        sprites = [n for n, o in OBJECTS.items() if o.kind is first.kind and not o.coloured and n != first.name]
        if not sprites:
            return replace(scene, objects=rest or scene.objects), "object"
        wrong, what = replace(first, name=sprites[rng.integers(len(sprites))], colour=None), "object"
    return replace(scene, objects=(wrong, *rest)), what


def _wrong_place(rng: np.random.Generator, place: Scenery) -> tuple[Scenery, str]:
    if rng.random() < 0.5:
        return replace(place, ground=Ground(_other(rng, list(Ground), place.ground))), "ground"
    return replace(place, sky=Sky(_other(rng, list(Sky), place.sky))), "sky"


def _faulty(rng: np.random.Generator, scene: Scene) -> tuple[Scene, tuple[str, ...]]:
    """The scene as a careless annotator would tell it: one attribute wrong, or an object or the camera left out."""
    draw = rng.random()
    if draw < 0.5:
        told, what = _wrong_object(rng, scene)
    elif draw < 0.75:
        place, what = _wrong_place(rng, scene.scenery)
        told = replace(scene, scenery=place)
    elif len(scene.objects) > 1:
        told, what = replace(scene, objects=scene.objects[:1]), "count"
    elif scene.camera is not Camera.STATIC:
        told, what = replace(scene, camera=Camera.STATIC), "camera"
    else:
        told, what = _wrong_object(rng, scene)
    return told, (what,)


def captions_of(rng: np.random.Generator, scene: Scene, *, careless: bool) -> Captions:
    """The clip's texts; a careless annotator gets about 15 % of the full captions wrong in one attribute."""
    told, faults = scene, ()
    if careless and rng.random() < _FAULT_ODDS:
        told, faults = _faulty(rng, scene)
    return Captions(
        full=Caption(text=full_caption(rng, told), faults=faults),
        short=Caption(text=_short_caption(rng, scene)),
        vague=Caption(text=_vague_caption(rng, scene)),
    )
