"""Backends by name: the ways in which a family's transformer is run; each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engines.errors import MissingExtra, UnknownName
from engines.family import EncodedText, Family
from engines.samplers import Sampler
from engines.samplers.guidance import Velocity


class Backend(Protocol):
    """A family made ready to run."""

    def condition(self, text: EncodedText) -> Any:
        """As `Family.condition`."""
        ...

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, condition: Any) -> torch.Tensor:
        """As `Family.velocity`: one transformer call for all rows."""
        ...

    def advance(self, sampler: Sampler, state: Any, velocity: Velocity) -> Any:
        """The sampler's state after one step at a velocity, guided where it says so."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry:
    """Where a backend lives, and the extra that brings what it imports.

    The module has `prepare(family) -> Backend`, or a compiler's `FORM` (`engines.backends.compiled`).
    """

    module: str
    extra: str | None


BACKENDS: dict[str, BackendEntry] = {
    "eager": BackendEntry(module="engines.backends.eager", extra=None),
    # Without the extra gpu it runs all the same, by the references.
    "fused": BackendEntry(module="engines.backends.fused", extra=None),
    "fused-int8": BackendEntry(module="engines.backends.fused_int8", extra=None),
    "fused-fp8": BackendEntry(module="engines.backends.fused_fp8", extra=None),
}


def find_backend(name: str) -> Callable[[Family], Backend]:
    """What makes a family ready to run on the backend of that name.

    Another name raises `UnknownName`; a backend whose dependencies are not installed raises `MissingExtra`.
    """
    if name not in BACKENDS:
        raise UnknownName("backend", name, known_backends())
    return imported(name, BACKENDS[name]).prepare


def imported(name: str, entry: BackendEntry) -> Any:
    """The module of a backend; `MissingExtra` when what it imports is not installed."""
    try:
        return importlib.import_module(entry.module)
    except ImportError as error:
        if entry.extra is None:
            raise
        raise MissingExtra(
            f"the backend {name!r} needs {error.name or error}; install it with: pip install 'rushes[{entry.extra}]'"
        ) from error


def known_backends() -> list[str]:
    """What a user can ask for, each with the extra it needs."""
    return [f"{name} (extra {entry.extra})" if entry.extra else name for name, entry in BACKENDS.items()]
