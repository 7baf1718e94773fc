"""The model by our operators, which read and write less between its products: Triton's on a GPU, else references."""

from __future__ import annotations

from typing import Any

from engines.backends.eager import EagerBackend
from engines.family import Family
from engines.operators.steps import advanced
from engines.samplers import Sampler
from engines.samplers.guidance import Velocity


class FusedBackend(EagerBackend):
    """A family whose transformer and VAE hold our operators; guidance and a sampler's step are one of them too."""

    def advance(self, sampler: Sampler, state: Any, velocity: Velocity) -> Any:
        """Both in one pass over the latents."""
        return advanced(sampler, state, velocity)


def prepare(family: Family) -> FusedBackend:
    """Swaps the operators in; `InvalidModel` where the model has parts that they do not know."""
    family.use_operators()
    return FusedBackend(family)
