"""Readings made by hand."""

from __future__ import annotations

import numpy as np

from post_train.data.diorama.vocabulary import Action, Camera, Ground, Sky, Weather
from post_train.rewards.reading import Reading, SeenObject, SeenTrack


def seen(name: str, action: Action | None, colour: str | None = None, confidence: float = 0.9) -> SeenObject:
    """An object that stays in the middle of the frame."""
    flat = np.full(17, 0.5, np.float32)
    track = SeenTrack(x=flat, y=flat, size=flat, presence=flat * 2)
    return SeenObject(name=name, colour=colour, action=action, confidence=confidence, track=track)


def reading(*objects: SeenObject, camera: Camera = Camera.STATIC, ground: Ground = Ground.MEADOW) -> Reading:
    """A dry, clear day with hills."""
    return Reading(objects=objects, ground=ground, sky=Sky.CLEAR, weather=Weather.NONE, camera=camera, hills=True)
