"""What a clip is: its frames and the full, typed truth about what they show.

Legend: F frames, S side of the square frame in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.vocabulary import OBJECTS, Action, Camera, Ground, Kind, Sky, Weather


class Split(StrEnum):
    """`clean` tells the truth and frames well; `wild` is as scraped data is."""

    CLEAN = "clean"
    WILD = "wild"


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where an object is on the screen, frame by frame, each array float32 [F].

    `x`, `y` centre and `size` side of the bounding square are fractions of the frame's side; `angle` is in radians,
    clockwise; `height` is the distance of the object's foot from its shadow, in fractions of the frame's side.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    size: NDArray[np.float32]
    angle: NDArray[np.float32]
    height: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One object of a clip: its class, its colour when it has a choice, what it is seen to do, and its track."""

    name: str
    colour: str | None
    action: Action
    track: Track
    mirrored: bool

    @property
    def kind(self) -> Kind:
        return OBJECTS[self.name].kind

    @property
    def noun(self) -> str:
        return f"{self.colour} {self.name}" if self.colour else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenery:
    """The place: its words, the horizon as a fraction of the height, and the numbers that pick its textures."""

    ground: Ground
    sky: Sky
    weather: Weather
    hills: bool
    horizon: float
    cloud_texture: int
    ground_texture: int
    ridge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a clip shows, before a pixel is drawn."""

    objects: tuple[SceneObject, ...]
    scenery: Scenery
    camera: Camera


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One text of a clip; `faults` names the attributes that it tells wrongly or leaves out by mistake (wild only)."""

    text: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """A clip's texts: `full` is what models train on; `short` and `vague` are what people type."""

    full: Caption
    short: Caption
    vague: Caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip and its truth, a pure function of (seed, side, num_frames, split); `frames` uint8 [F, S, S, 3]."""

    frames: NDArray[np.uint8]
    scene: Scene
    captions: Captions
    seed: int
    split: Split
    version: int
