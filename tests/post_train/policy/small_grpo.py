"""Policy optimisation cut down to what a test runs in seconds: the tiny random Wan, small groups, a simple reward."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from post_train.distributed import ALONE, Ranks
from post_train.grpo_run import Audience, GrpoOptions, GrpoRun
from post_train.lora import Lora
from post_train.policy.panel import Panel, Seat
from post_train.policy.plan import Rollouts
from post_train.policy.prompts import PolicyPrompts
from post_train.policy.validation import ValidationConfig
from post_train.precision import Precision
from post_train.recipes.grpo import GrpoRecipe, wan_grpo
from post_train.rewards.base import Dimension, Film, Score

PROMPTS = ("a red ball rolls", "a snowy field at night", "rain over hills", "a box spins", "a bird")


@dataclass(frozen=True, slots=True)
class Measure:
    """A reward that is a function of the frames."""

    name: str
    value: Callable[[NDArray[np.uint8]], float]
    dimension: Dimension = Dimension.VISUAL_QUALITY

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    def score(self, films: Sequence[Film]) -> list[Score]:
        """The value of each film."""
        return [Score(value=self.value(film.frames), noise=0.0) for film in films]


def brightness(frames: NDArray[np.uint8]) -> float:
    """The mean grey level."""
    return float(frames.mean())


def contrast(frames: NDArray[np.uint8]) -> float:
    """The deviation of the grey levels."""
    return float(frames.std())


def small_grpo(
    preset: str = "flash", *, steps: int = 4, lora: Lora | None = None, prompts: int = 2, updates: int = 2
) -> GrpoRecipe:
    """The recipe of real Wans with other numbers."""
    full = wan_grpo(preset)
    rollouts = Rollouts(prompts=prompts, size=4)
    policy = replace(full.policy, rollouts=rollouts, updates=updates, rollout_batch=4, micro_batch=2)
    return replace(
        full,
        loop=replace(full.loop, steps=steps, lr=1e-3, warmup_steps=1, sample_every=2, log_every=1),
        policy=policy,
        validation=ValidationConfig(prompts=2, every=2, patience=9),
        sampling_steps=5,
        lora=lora,
        frozen="fp32",
        gradient_checkpointing=False,
    )


def small_run(
    recipe: GrpoRecipe,
    model: Path,
    folder: Path,
    *,
    reward: Callable[[NDArray[np.uint8]], float] = brightness,
    novelty: float = 0.0,
    validating: Measure | None = None,
    validation_prompts: tuple[str, ...] = PROMPTS[:2],
    precision: Precision = "fp32",
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> GrpoRun:
    """A run whose one reward also validates, where nothing else does."""
    measure = Measure("measure", reward)
    return GrpoRun(
        recipe,
        GrpoOptions(folder=folder, precision=precision, minutes=10, resume=resume),
        model=model,
        prompts=PolicyPrompts(source="test", texts=PROMPTS),
        audience=Audience(
            panel=Panel([Seat(reward=measure, weight=1.0)], novelty=novelty),
            validating=[validating or measure],
            validation_prompts=validation_prompts,
        ),
        ranks=ranks,
        report=lambda _: None,
    )
