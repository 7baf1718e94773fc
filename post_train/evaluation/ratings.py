"""Reads what a person rated on the page, and makes of it the same figures that a judge gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from post_train.evaluation.gsb import gsb_of
from post_train.evaluation.summary import SCHEMA, told_gsb

_MAX_BYTES = 64 * 2**20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RatedSide(_Strict):
    """One side by name, with the hash of its weights."""

    name: str
    weights: str


class RatedItem(_Strict):
    """One choice: which side was on the left, and which film the rater took for the better one."""

    prompt: str
    seed: int
    left: Literal["a", "b"]
    choice: Literal["left", "same", "right"]
    outcome: Literal[-1, 0, 1]

    @property
    def verdict(self) -> int:
        """1 where A was chosen, -1 where B was."""
        if self.choice == "same":
            return 0
        return 1 if (self.choice == "left") == (self.left == "a") else -1


class Ratings(_Strict):
    """The file that the page hands out."""

    schema_version: Literal[1] = Field(alias="schema")
    n: int
    seeds: int
    gsb: float
    gsb_low: float
    gsb_high: float
    good: int
    same: int
    bad: int
    by: Literal["person"]
    rater: str = Field(min_length=1, max_length=80)
    a: RatedSide
    b: RatedSide
    prompts: str
    shuffle_seed: int
    skipped: int = Field(ge=0)
    items: tuple[RatedItem, ...] = Field(min_length=1)


def read_ratings(path: Path) -> Ratings:
    """The ratings in `path`. ValueError in a sentence for what the page did not write, or what was changed since."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_BYTES} bytes, which no ratings are")
    try:
        ratings = Ratings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ValueError(f"{path} holds no ratings of the page: {where}: {first['msg']}") from None
    wrong = [i for i in ratings.items if i.outcome != i.verdict]
    if wrong:
        raise ValueError(
            f"{path} tells outcome {wrong[0].outcome} of {wrong[0].prompt!r}, but its choice says otherwise"
        )
    return ratings


def rated_summary(ratings: Ratings) -> dict[str, Any]:
    """The figures of the ratings, recomputed from the single choices."""
    verdicts = np.array([[i.verdict] for i in ratings.items], dtype=np.int8)
    left = sum(i.left == "a" for i in ratings.items)
    return {
        "schema": SCHEMA,
        "n": len(ratings.items),
        "seeds": ratings.seeds,
        **told_gsb(gsb_of(verdicts)),
        "by": "person",
        "rater": ratings.rater,
        "a": ratings.a.model_dump(),
        "b": ratings.b.model_dump(),
        "prompts": ratings.prompts,
        "shuffle_seed": ratings.shuffle_seed,
        "skipped": ratings.skipped,
        "a_left": left,
        "left_chosen": sum(i.choice == "left" for i in ratings.items),
        "items": [i.model_dump() for i in ratings.items],
    }
