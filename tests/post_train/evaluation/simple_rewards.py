"""Rewards that need no weights: plain functions of the pixels, so that a whole evaluation can run in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from post_train.evaluation.scoring import Judges
from post_train.rewards.base import Dimension, Film, Score


@dataclass(slots=True)
class PixelReward:
    """Scores a film by `measure`; counts the films that it was asked about."""

    dimension: Dimension
    measure: Callable[[Film], float]
    digest: str
    name: str = "pixels"
    noise: float = 1e-6
    seen: int = 0

    def score(self, films: Sequence[Film]) -> list[Score]:
        self.seen += len(films)
        values = [float(self.measure(film)) for film in films]
        return [
            Score(value=v, noise=self.noise, parts={"object": v, "action": v / 2, **_motion(f)})
            for v, f in zip(values, films, strict=True)
        ]


def simple_judges(role: str = "held_out", *, digest: str = "1") -> Judges:
    """TA is redness, MQ is change over time, VQ is contrast."""
    return Judges(
        role=role,
        rewards=(
            PixelReward(Dimension.TEXT_ALIGNMENT, lambda f: f.frames[..., 0].mean() / 255, f"ta{digest}"),
            PixelReward(
                Dimension.MOTION_QUALITY, lambda f: np.diff(f.frames.astype(float), axis=0).std(), f"mq{digest}"
            ),
            PixelReward(Dimension.VISUAL_QUALITY, lambda f: f.frames.astype(float).std(), f"vq{digest}"),
        ),
    )


def _motion(film: Film) -> dict[str, float]:
    change = float(np.abs(np.diff(film.frames.astype(float), axis=0)).mean())
    return {"dynamic_degree": float(change > 5), "temporal_flickering": 1 - change / 255}
