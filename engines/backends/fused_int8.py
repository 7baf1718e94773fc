"""The model by our operators, with the blocks' products in int8, weights rounded as they are loaded."""

from __future__ import annotations

from engines.backends.fused import FusedBackend
from engines.family import Family


def prepare(family: Family) -> FusedBackend:
    """Swaps the operators in; `InvalidModel` where the model has parts that they do not know."""
    family.use_operators("int8")
    return FusedBackend(family)
