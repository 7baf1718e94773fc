"""What a judge reads off a film's pixels, without its prompt: objects with their tracks, place, weather and camera.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.vocabulary import Action, Camera, Ground, Sky, Weather

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTrack:
    """Where an object is seen, each float32 [F]: centre and size in fractions of the frame's side (x of its width).

    `presence` is the judge's belief in [0, 1] that the object is on that frame at all.
    """

    x: Floats
    y: Floats
    size: Floats
    presence: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One object: its class, colour (None for sprites), the action its motion shows, and how sure the judge is."""

    name: str
    colour: str | None
    action: Action | None
    confidence: float
    track: SeenTrack


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A whole film as a judge reads it; `objects` by falling confidence, two of one class if two are seen."""

    objects: tuple[SeenObject, ...]
    ground: Ground
    sky: Sky
    weather: Weather
    camera: Camera
    hills: bool
