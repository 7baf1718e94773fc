"""A step cache: at chosen steps of a film the velocity is extrapolated from those before, and nothing is computed.

Which steps bear it is measured when a package is built (`engines.building.step_cache`) and the same for every film, so
that a film does not depend on its mates, and its cost is known beforehand. TaylorSeer (arXiv 2503.06923) extrapolates
the features of a transformer; here it is its output, to first order, so that any compiled step will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.samplers.guidance import Velocity


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReuse:
    """The steps, from 0, of films of `num_steps` whose velocity is extrapolated; other films have none."""

    num_steps: int
    steps: frozenset[int]

    def __post_init__(self) -> None:
        beyond = sorted(step for step in self.steps if not 2 <= step < self.num_steps)
        if beyond:
            raise ValueError(f"step {beyond[0]} of {self.num_steps} cannot be extrapolated: it needs two before it")

    def at(self, index: int, num_steps: int) -> bool:
        """Whether step `index` of a film of `num_steps` is one."""
        return num_steps == self.num_steps and index in self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedStep:
    """What the transformer said at a noise level."""

    sigma: float
    velocity: Velocity


def extrapolated(first: ComputedStep, second: ComputedStep, sigma: float) -> Velocity:
    """The velocity at `sigma` on the line through two computed ones."""
    ratio = (sigma - second.sigma) / (second.sigma - first.sigma)

    def along(before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return last + ratio * (last - before)

    one, two = first.velocity, second.velocity
    unconditional = (
        None if one.unconditional is None or two.unconditional is None else along(one.unconditional, two.unconditional)
    )
    return Velocity(conditional=along(one.conditional, two.conditional), unconditional=unconditional, scales=two.scales)
