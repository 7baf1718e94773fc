"""Engines turn a prompt into frames; torch is imported only when an engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.engine import Engine, load_engine

__all__ = ["Engine", "load_engine"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from engines import engine  # noqa: PLC0415  (the gateway imports this package and must not import torch)

        return getattr(engine, name)
    raise AttributeError(f"module 'engines' has no attribute {name!r}")
