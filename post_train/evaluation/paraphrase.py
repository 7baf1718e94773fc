"""Tells a scene as no caption of it does: rarer words for everything, and the place before what happens there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from post_train.data.diorama.record import Scene, SceneObject
from post_train.data.diorama.vocabulary import (
    CAMERA_PHRASES,
    COLOUR_SYNONYMS,
    HILLS_PHRASES,
    OBJECTS,
    SKY_PHRASES,
    WEATHER_PHRASES,
    Camera,
    Kind,
    Weather,
    action_phrases,
    ground_phrases,
    with_article,
)


def _rarer(rng: np.random.Generator, phrases: Sequence[str]) -> str:
    """One of the phrases that are not the canonical first, or that one when it is alone."""
    rest = phrases[1:] or phrases
    return rest[int(rng.integers(len(rest)))]


def _clause(rng: np.random.Generator, thing: SceneObject) -> str:
    noun = _rarer(rng, (thing.name, *OBJECTS[thing.name].synonyms))
    if thing.colour is not None:
        noun = f"{_rarer(rng, (thing.colour, *COLOUR_SYNONYMS[thing.colour]))} {noun}"
    return f"{with_article(noun)} {_rarer(rng, action_phrases(thing.action, thing.kind))}"


def paraphrase(rng: np.random.Generator, scene: Scene) -> str:
    """All that the full caption of `scene` says, in synonyms and in another order."""
    place = scene.scenery
    flying = all(o.kind is Kind.FLYER for o in scene.objects)
    where = _rarer(rng, ground_phrases(place.ground, flying=flying))
    sky = _rarer(rng, SKY_PHRASES[place.sky])
    hills = f" {_rarer(rng, HILLS_PHRASES)}" if place.hills else ""
    told = [f"{where} {sky}{hills}", " and ".join(_clause(rng, o) for o in scene.objects)]
    if place.weather is not Weather.NONE:
        told.insert(1, _rarer(rng, WEATHER_PHRASES[place.weather]))
    if scene.camera is not Camera.STATIC:
        told.append(_rarer(rng, CAMERA_PHRASES[scene.camera]))
    text = ", ".join(told)
    return text[0].upper() + text[1:] + "."
