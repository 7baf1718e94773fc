"""What goes between a run and a reward in another process: JSON with a version, films in it losslessly."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from post_train.rewards.base import Dimension

SCHEMA_VERSION = 1
MOST_FILMS = 64
"""Films in one request."""
MOST_BYTES = 512 * 2**20
"""Of a request's body."""

_Name = Annotated[str, Field(max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Versioned(BaseModel):
    """What every message of every version says of itself; read before the rest is held to this version."""

    schema_version: int


class WireFilm(_Strict):
    """A film in one of three ways: `png` frames or a lossless `mp4` in base64, or the `path` of one on a shared disk.

    A path is relative to the folder that the service was started with.
    """

    name: _Name
    prompt: Annotated[str, Field(max_length=20_000)]
    fps: Annotated[int, Field(ge=1, le=1000)]
    png: Annotated[list[str], Field(min_length=1, max_length=2000)] | None = None
    mp4: str | None = None
    path: Annotated[str, Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> WireFilm:
        given = [n for n in ("png", "mp4", "path") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a film comes as one of png, mp4 or path, got {given or 'none'}")
        return self


class ScoreRequest(_Strict):
    """Films to be scored, in order."""

    schema_version: int
    films: Annotated[list[WireFilm], Field(min_length=1, max_length=MOST_FILMS)]


class WireScore(_Strict):
    """One film's score; `noise` is the scorer's own standard error, in the unit of `value`."""

    value: float
    noise: float
    parts: dict[str, float] = {}


class ScorerFacts(_Strict):
    """Which scorer answers: `digest` changes whenever any score may."""

    schema_version: int
    name: _Name
    digest: Annotated[str, Field(max_length=200)]
    dimension: Dimension


class ScoreResponse(ScorerFacts):
    """One score a film, in the request's order, with the scorer that gave them."""

    scores: list[WireScore]


class Problem(BaseModel):
    """Why there are no scores; `film` names the one at fault if one is."""

    reason: Annotated[str, Field(max_length=5000)]
    film: str | None = None
