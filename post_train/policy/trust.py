"""Surrogates: what is minimised of a drawn step, and how far a policy may leave the one that drew it.

Legend: B drawn steps of one noise level. Everything is fp32; log-probabilities and divergences are means over a
film's values, so ratios stay near one whatever the film's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped
from torch import Tensor

Rows = Float[Tensor, " B"]


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What became of drawn steps under the present weights.

    `log_ratio` is log(present / drawing probability). The divergences are |mean - mean'|^2 / (2 deviation^2) of the
    present policy's steps and those of the policy that drew, of the reference, and of the moving anchor.
    `deviation` and `dt` (below 0) are the step's own.
    """

    log_ratio: Rows
    advantages: Rows
    from_drawing: Rows
    from_reference: Rows
    from_anchor: Rows | None
    deviation: float
    dt: float


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The loss of each drawn step, and which of them the trust region keeps from moving the policy."""

    losses: Rows
    held: Bool[Tensor, " B"]


class TrustRegion(Protocol):
    """A method's surrogate."""

    @property
    def anchor_every(self) -> int | None:
        """A moving anchor is told of, a copy of the policy renewed every so many rollouts; None for none."""
        ...

    @property
    def clip_range(self) -> float:
        """What `apart` may be before it counts."""
        ...

    def apart(self, log_ratio: Tensor, from_drawing: Tensor, deviation: float) -> Tensor:
        """How far drawn steps are from the policy that drew them, in the unit of `clip_range`."""
        ...

    def __call__(self, moves: Moves) -> Verdict:
        """The verdict on drawn steps."""
        ...


@dataclass(frozen=True, slots=True)
class Clip:
    """PPO's clipped ratio, with `kl` times the divergence from the reference (arXiv 2505.05470, equation 5)."""

    clip_range: float = 1e-3
    kl: float = 0.0
    anchor_every: int | None = None

    def apart(self, log_ratio: Tensor, from_drawing: Tensor, deviation: float) -> Tensor:  # noqa: ARG002
        return log_ratio.expm1().abs()

    def __call__(self, moves: Moves) -> Verdict:
        ratio = moves.log_ratio.exp()
        verdict = _clipped(ratio, moves.advantages, self.clip_range)
        return Verdict(losses=verdict.losses + self.kl * moves.from_reference, held=verdict.held)


@dataclass(frozen=True, slots=True)
class DualKl:
    """SAGE-GRPO (arXiv 2603.21872): clipped ratio, a pull to a moving anchor and one to the drawing policy."""

    clip_range: float = 1e-3
    coefficient: float = 1e-5
    to_anchor: float = 1.0
    stepwise: float = 0.1
    anchor_every: int | None = 10

    def apart(self, log_ratio: Tensor, from_drawing: Tensor, deviation: float) -> Tensor:  # noqa: ARG002
        return log_ratio.expm1().abs()

    def __call__(self, moves: Moves) -> Verdict:
        if moves.from_anchor is None:
            raise ValueError("dual KL was not told of its moving anchor")
        verdict = _clipped(moves.log_ratio.exp(), moves.advantages, self.clip_range)
        pull = self.to_anchor * moves.from_anchor + self.stepwise * moves.from_drawing
        return Verdict(losses=verdict.losses + self.coefficient * pull, held=verdict.held)


@dataclass(frozen=True, slots=True)
class Guard:
    """GRPO-Guard (arXiv 2510.22319): the ratio is centred and scaled so that all steps are clipped alike.

    ratio = exp((log_ratio + divergence from the drawing policy) * deviation), the loss divided by -dt.
    """

    clip_range: float = 2e-6
    anchor_every: int | None = None

    def apart(self, log_ratio: Tensor, from_drawing: Tensor, deviation: float) -> Tensor:  # noqa: ARG002
        return (log_ratio * deviation).expm1().abs()

    def __call__(self, moves: Moves) -> Verdict:
        ratio = ((moves.log_ratio + moves.from_drawing.detach()) * moves.deviation).exp()
        verdict = _clipped(ratio, moves.advantages, self.clip_range)
        return Verdict(losses=verdict.losses / -moves.dt, held=verdict.held)


@dataclass(frozen=True, slots=True)
class Divergence:
    """DPPO (arXiv 2606.11025): a step that is further than `bound` from the drawing policy and leaves it has no say."""

    bound: float = 1e-5
    anchor_every: int | None = None

    @property
    def clip_range(self) -> float:
        return self.bound

    def apart(self, log_ratio: Tensor, from_drawing: Tensor, deviation: float) -> Tensor:  # noqa: ARG002
        return from_drawing

    def __call__(self, moves: Moves) -> Verdict:
        ratio = moves.log_ratio.exp()
        leaving = torch.where(moves.advantages > 0, ratio > 1, ratio < 1)
        held = leaving & (moves.from_drawing > self.bound)
        losses = -moves.advantages * torch.where(held, ratio.detach(), ratio)
        return Verdict(losses=losses, held=held)


def _clipped(ratio: Tensor, advantages: Tensor, clip_range: float) -> Verdict:
    free = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return Verdict(losses=torch.maximum(free, bound), held=bound.detach() > free.detach())
