"""The common scale of the three dimensions: mean and deviation on the base model's films, frozen in a file.

It is frozen before any candidate is trained, with the hashes of the base's weights and of the judges, so that neither
can change under a comparison unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.whole_writes import write_whole
from post_train.evaluation.arms import SHIPPED, Arm, shipped_folder
from post_train.evaluation.digests import folder_digest
from post_train.evaluation.scoring import FilmScores, Judges
from post_train.rewards.base import Dimension

FROZEN = Path(__file__).parent / "frozen"


class Spread(BaseModel):
    """One dimension on the base's films."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    deviation: float = Field(gt=0)


class Scale(BaseModel):
    """How scores become comparable; `provisional` when it was taken from B's films for want of a frozen one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    weights: str
    role: str
    judges: dict[str, str]
    prompts: str
    films: int
    dimensions: dict[Dimension, Spread]
    provisional: bool = False

    def total(self, found: FilmScores) -> float:
        """The sum of the dimensions, each in deviations from the base's mean."""
        return sum((found.scores[d].value - s.mean) / s.deviation for d, s in self.dimensions.items())

    def noise(self, found: FilmScores) -> float:
        """The judge's own standard error on `total`."""
        return float(np.sqrt(sum((found.scores[d].noise / s.deviation) ** 2 for d, s in self.dimensions.items())))


def frozen_file(role: str) -> Path:
    """Where the shipped scale of a judge lies."""
    return FROZEN / f"{role}.json"


def measure_scale(
    arm: Arm, judges: Judges, prompts: str, found: Sequence[FilmScores], *, provisional: bool = False
) -> Scale:
    """The scale that the films of `arm` give.

    ValueError where all have one score, unless it is provisional: such a dimension then counts in its own unit.
    """
    dimensions: dict[Dimension, Spread] = {}
    for dimension in Dimension:
        values = np.array([f.scores[dimension].value for f in found])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        if deviation < 1e-9 and not provisional:
            raise ValueError(
                f"all {len(found)} films of {arm.name!r} have one {dimension}; no scale can be taken from them"
            )
        dimensions[dimension] = Spread(mean=float(values.mean()), deviation=deviation if deviation >= 1e-9 else 1.0)
    return Scale(
        model=arm.name,
        weights=arm.digest,
        role=judges.role,
        judges=judges.digests,
        prompts=prompts,
        films=len(found),
        dimensions=dimensions,
        provisional=provisional,
    )


def write_scale(path: Path, scale: Scale) -> None:
    """Freezes `scale`."""
    write_whole(path, (scale.model_dump_json(indent=2) + "\n").encode())


def read_scale(path: Path, judges: Judges) -> Scale:
    """A frozen scale, refused with ValueError when judge or base are no longer those that it was frozen with."""
    try:
        scale = Scale.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{path} is no frozen scale: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    again = "freeze anew with `rushes evaluate base base --freeze`, before any candidate is judged by it"
    changed = sorted(d for d in judges.digests if judges.digests[d] != scale.judges.get(d))
    if changed or scale.role != judges.role:
        raise ValueError(
            f"{path} was frozen with another {judges.role} judge of {', '.join(changed) or 'role'}; {again}"
        )
    if scale.model in SHIPPED:
        folder = shipped_folder(scale.model)
        if folder.is_dir() and folder_digest(folder) != scale.weights:
            raise ValueError(
                f"{path} was frozen on other weights than the {scale.model!r} of this installation; {again}"
            )
    return scale
