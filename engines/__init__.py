"""Engines turn a prompt into frames; torch is imported only when an engine is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.engine import Engine, load_engine

__all__ = ["Engine", "load_engine"]

# How torch's threads wait for one another is read once, when torch is loaded. Left alone they spin, and where other
# work holds a core they spin for one that can't come: a step of a 9M model took 5.1 s with two spinning threads on two
# busy cores, 0.08 s with two that sleep (0.06 s with one). engines.threads chooses their number.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name in __all__:
        from engines import engine  # noqa: PLC0415  (the gateway imports this package and must not import torch)

        return getattr(engine, name)
    raise AttributeError(f"module 'engines' has no attribute {name!r}")
