"""Generated films that people labelled by eye, without their prompts: what a judge's reading of such films is held to.

A folder holds `labels.json` and the films, each a WebP of its frames below one another. A label that is null says that
nobody can tell; it is not held against a judge. Legend: F frames, H W pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from engines.whole_writes import write_whole
from post_train.data.diorama.asked import Asked, AskedObject
from post_train.data.diorama.vocabulary import COLOURS, OBJECTS, Action, Camera, Ground, Sky, Weather

LABELLED = Path(__file__).parent / "labelled"
"""The labelled films that come with rushes."""
LABELS = "labels.json"
_QUALITY = 92


class LabelError(ValueError):
    """A folder of labelled films is incomplete or says what cannot be."""


class ObjectLabel(BaseModel):
    """One object as it is seen; an `action` of null is one that nobody can name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    colour: str | None = None
    action: Action | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OBJECTS:
            raise ValueError(f"object {name!r} is not one of this world's")
        return name

    @field_validator("colour")
    @classmethod
    def _a_colour(cls, colour: str | None) -> str | None:
        if colour is not None and colour not in COLOURS:
            raise ValueError(f"colour {colour!r} is not one of this world's")
        return colour


class FilmLabel(BaseModel):
    """What one film shows. `objects` are all of them, or null where one cannot be told; then none is held to anything.

    No field has a default: a label says of everything what is seen, or that it cannot be told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    film: str
    objects: tuple[ObjectLabel, ...] | None
    ground: Ground | None
    sky: Sky | None
    weather: Weather | None
    camera: Camera | None
    hills: bool | None

    def shown(self) -> Asked:
        """The label as what a text would ask for that tells all of it."""
        objects = tuple(AskedObject(name=o.name, colour=o.colour, action=o.action) for o in self.objects or ())
        return Asked(
            objects=objects,
            ground=self.ground,
            sky=self.sky,
            weather=self.weather,
            camera=self.camera,
            hills=self.hills,
        )


class Labels(BaseModel):
    """A set of labels; `by` says who looked, `weights` names the models whose films these are by hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    weights: tuple[str, ...]
    films: tuple[FilmLabel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFilm:
    """Frames uint8 [F, H, W, 3] and what a person saw in them."""

    name: str
    frames: NDArray[np.uint8]
    shown: Asked


def read_labelled(folder: Path) -> list[LabelledFilm]:
    """All labelled films of a folder of which anything was told; LabelError when label or film is amiss."""
    path = folder / LABELS
    try:
        labels = Labels.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise LabelError(f"{folder} holds no {LABELS}; make films to label with `rushes train to-label`") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise LabelError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    names = [label.film for label in labels.films]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise LabelError(f"{path} labels {', '.join(twice)} more than once")
    return [
        LabelledFilm(name=label.film, frames=read_film(folder / f"{label.film}.webp"), shown=label.shown())
        for label in labels.films
        if not label.shown().nothing
    ]


def read_film(path: Path) -> NDArray[np.uint8]:
    """The frames uint8 [F, S, S, 3] of a square film."""
    try:
        with Image.open(path) as picture:
            tall = np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise LabelError(f"the film {path} cannot be read: {error}") from None
    side = tall.shape[1]
    if tall.shape[0] % side:
        raise LabelError(f"the film {path} is {tall.shape[1]}x{tall.shape[0]}, which is no column of square frames")
    return tall.reshape(-1, side, side, 3)


def write_film(path: Path, frames: NDArray[np.uint8]) -> None:
    """Writes square frames uint8 [F, S, S, 3] below one another, whole or not at all."""
    if frames.shape[1] != frames.shape[2]:
        raise LabelError(f"films to label are square, this one is {frames.shape[2]}x{frames.shape[1]}")
    buffer = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(buffer, format="WEBP", quality=_QUALITY, method=5)
    write_whole(path, buffer.getvalue())


def blank_labels(names: Sequence[str], weights: str) -> bytes:
    """A `labels.json` in which nothing is told yet."""
    unknown = {"objects": None, "ground": None, "sky": None, "weather": None, "camera": None, "hills": None}
    films = [{"film": name, **unknown} for name in names]
    return (json.dumps({"by": "", "weights": [weights], "films": films}, indent=1) + "\n").encode()
