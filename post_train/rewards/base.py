"""What a reward is: films and their prompts in, a score and its own noise out, and never a silent zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Dimension(StrEnum):
    """The three things a film is judged by."""

    TEXT_ALIGNMENT = "ta"
    MOTION_QUALITY = "mq"
    VISUAL_QUALITY = "vq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Frames uint8 [F, H, W, 3] with the user's original prompt, whatever an enhancer made of it; `name` for errors."""

    name: str
    prompt: str
    frames: NDArray[np.uint8]
    fps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A film's score: higher is better. `noise` is the judge's own standard error on it, in the same unit.

    `parts` are what the score was made of, by name, for reports; nothing is chosen by them.
    """

    value: float
    noise: float
    parts: dict[str, float] = field(default_factory=dict)


class Reward(Protocol):
    """Scores films on one dimension. `name` tells it from others; `digest` hashes all that decides its scores."""

    name: str
    digest: str
    dimension: Dimension

    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film, in order."""
        ...


class RewardError(RuntimeError, ValueError):
    """A reward failed: the run stops, because a zero in its place would teach whatever made it fail."""

    def __init__(self, reward: str, film: str, why: str) -> None:
        super().__init__(f"reward {reward!r} gave no score for film {film!r}: {why}; nothing was counted as zero")
        self.reward, self.film = reward, film


def scored(reward: Reward, films: Sequence[Film]) -> list[Score]:
    """`reward.score(films)`, refused with RewardError when a score is missing, not a number or infinite."""
    scores = reward.score(films)
    if len(scores) != len(films):
        raise RewardError(reward.name, films[0].name if films else "", f"{len(scores)} scores for {len(films)} films")
    for film, score in zip(films, scores, strict=True):
        if not (math.isfinite(score.value) and math.isfinite(score.noise)):
            raise RewardError(reward.name, film.name, f"it is {score.value} with noise {score.noise}")
    return scores
