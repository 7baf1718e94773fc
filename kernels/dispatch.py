"""Which implementation of an operator runs, and a record of which one did.

The operators are `torch.library` custom operators; each asks here when it is called. On a GPU the Triton twin runs, on
other devices the reference. A caller may ask for another by `using`, and learn what ran by `recorded`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

import torch


class Implementation(StrEnum):
    """Where an operator is computed; the last four are libraries for attention alone."""

    REFERENCE = "reference"
    TRITON = "triton"
    INTERPRETER = "interpreter"
    SDPA = "sdpa"
    FLASH_ATTN = "flash_attn"
    XFORMERS = "xformers"
    SAGE = "sageattention"


class OperatorUnavailableError(ValueError):
    """An implementation was asked for that this machine cannot run."""


_asked: ContextVar[Implementation | None] = ContextVar("asked", default=None)
_record: ContextVar[list[tuple[str, Implementation]] | None] = ContextVar("record", default=None)


@contextmanager
def using(implementation: Implementation) -> Iterator[None]:
    """Within it every operator runs as `implementation`; INTERPRETER runs the Triton twin on CPU tensors.

    OperatorUnavailableError when Triton is missing, or was loaded for the other way of running it.
    """
    if implementation in {Implementation.TRITON, Implementation.INTERPRETER}:
        _check_triton(interpreted=implementation is Implementation.INTERPRETER)
    token = _asked.set(implementation)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def recorded() -> Iterator[list[tuple[str, Implementation]]]:
    """A list that fills with (operator, implementation) of every call within it."""
    ran: list[tuple[str, Implementation]] = []
    token = _record.set(ran)
    try:
        yield ran
    finally:
        _record.reset(token)


def chosen(operator: str, tensor: torch.Tensor) -> Implementation:
    """What runs `operator` on `tensor`: what `using` asked for, else the twin on a GPU and the reference elsewhere."""
    asked = _asked.get()
    if asked is None:
        asked = Implementation.TRITON if tensor.is_cuda and triton_installed() else Implementation.REFERENCE
    ran = _record.get()
    if ran is not None:
        ran.append((operator, asked))
    return asked


def is_twin(implementation: Implementation) -> bool:
    """Whether the Triton twin computes, on a GPU or in the interpreter."""
    return implementation in {Implementation.TRITON, Implementation.INTERPRETER}


def triton_installed() -> bool:
    """Whether Triton can be imported here."""
    return importlib.util.find_spec("triton") is not None


def _check_triton(*, interpreted: bool) -> None:
    if not triton_installed():
        raise OperatorUnavailableError("Triton is not installed; install the extra gpu: pip install 'rushes[gpu]'")
    # Triton reads the variable when a kernel is defined, so it decides for the whole process.
    if interpreted != (os.environ.get("TRITON_INTERPRET") == "1"):
        wanted = "set TRITON_INTERPRET=1" if interpreted else "unset TRITON_INTERPRET"
        raise OperatorUnavailableError(f"{wanted} before the process starts, to run Triton's kernels so")
