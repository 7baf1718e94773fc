"""The transformer as PyTorch runs it, uncompiled: the truth that every other backend is measured against."""

from __future__ import annotations

from engines.backends import Backend
from engines.family import Family


def prepare(family: Family) -> Backend:
    """Nothing to prepare: a family runs itself."""
    return family
