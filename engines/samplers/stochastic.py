"""A step that draws its end: a Gaussian around a point that the velocity decides, and what is remembered of a draw.

B batch, C channels, T latent frames, H W latent size.

Every stochastic sampler of a flow is x' = keep * x + pull * v + deviation * e with e standard normal; which three
numbers a step has is the method's own affair (`post_train.policy.steps` knows those of the literature).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from engines.samplers.guidance import Velocity
from kernels.stochastic import stochastic_score, stochastic_step


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianStep:
    """x' ~ N(keep * x + pull * v, deviation^2). ValueError for a deviation of zero, which has no density."""

    keep: float
    pull: float
    deviation: float

    def __post_init__(self) -> None:
        if not (self.deviation > 0 and math.isfinite(self.keep) and math.isfinite(self.pull)):
            raise ValueError(f"a step that draws needs finite numbers and a deviation above 0, got {self}")

    @property
    def pull_to_noise(self) -> float:
        """|pull| / deviation: how strongly the gradient of a draw's log-probability by the velocity grows with it."""
        return abs(self.pull) / self.deviation

    def draw(
        self, x_BCTHW: torch.Tensor, velocity: Velocity, noise_BCTHW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next latents, and the log-probability of each row's draw as the mean over its values, float32 [B]."""
        drawn, total = stochastic_step(
            x_BCTHW, *velocity.parts, noise=noise_BCTHW, keep=self.keep, pull=self.pull, deviation=self.deviation
        )
        return drawn, total / x_BCTHW[0].numel()

    def log_probability(self, x_BCTHW: torch.Tensor, velocity: Velocity, taken_BCTHW: torch.Tensor) -> torch.Tensor:
        """That of having gone from x to `taken`, the mean over a row's values, float32 [B]; gradients reach v alone."""
        total = stochastic_score(
            x_BCTHW, *velocity.parts, taken=taken_BCTHW, keep=self.keep, pull=self.pull, deviation=self.deviation
        )
        return total / x_BCTHW[0].numel()

    def divergence(self, velocity_BCTHW: torch.Tensor, other_BCTHW: torch.Tensor) -> torch.Tensor:
        """The KL divergence of two such steps from one point, |mean - mean'|^2 / (2 deviation^2) as a mean, [B]."""
        apart = (velocity_BCTHW.float() - other_BCTHW.float()).square().mean((1, 2, 3, 4))
        return 0.5 * self.pull_to_noise**2 * apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A drawn step of a batch: from `before` to `after` [B, C, T, H, W] at step `index`, by the guided `velocity`.

    `log_probability` [B] is a mean over values, in float32.
    """

    index: int
    gaussian: GaussianStep
    before: torch.Tensor
    after: torch.Tensor
    velocity: torch.Tensor
    log_probability: torch.Tensor
