"""The transformer as PyTorch runs it, uncompiled: the truth that every other backend is measured against."""

from __future__ import annotations

from typing import Any

import torch

from engines.family import EncodedText, Family
from engines.samplers import Sampler
from engines.samplers.guidance import Velocity


class EagerBackend:
    """A family that runs itself, and samplers as they are written."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def condition(self, text: EncodedText) -> Any:
        """The family's own."""
        return self._family.condition(text)

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, condition: Any) -> torch.Tensor:
        """The family's own."""
        return self._family.velocity(latents_BCTHW, timestep, condition)

    def advance(self, sampler: Sampler, state: Any, velocity: Velocity) -> Any:
        """Guidance, and then the sampler's step."""
        return sampler.step(state, velocity.guided())


def prepare(family: Family) -> EagerBackend:
    """Nothing to prepare: a family runs itself."""
    return EagerBackend(family)
