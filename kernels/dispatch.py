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
from functools import cache
from typing import Any

import torch


class Implementation(StrEnum):
    """Where an operator is computed; ONEDNN is a library for convolution on a CPU, the last four are for attention."""

    REFERENCE = "reference"
    TRITON = "triton"
    INTERPRETER = "interpreter"
    ONEDNN = "onednn"
    SDPA = "sdpa"
    FLASH_ATTN = "flash_attn"
    XFORMERS = "xformers"
    SAGE = "sageattention"


_FOR_ONE = {
    Implementation.ONEDNN: "causal_conv3d",
    Implementation.SDPA: "attention",
    Implementation.FLASH_ATTN: "attention",
    Implementation.XFORMERS: "attention",
    Implementation.SAGE: "attention",
}
# What must be importable for each, and how one comes by it.
_PACKAGES = {
    Implementation.TRITON: ("triton", "install the extra gpu: pip install 'rushes[gpu]'"),
    Implementation.INTERPRETER: ("triton", "install the extra gpu: pip install 'rushes[gpu]'"),
    Implementation.FLASH_ATTN: ("flash_attn", "pip install flash-attn on a machine with an NVIDIA GPU"),
    Implementation.XFORMERS: ("xformers", "install the extra xformers: pip install 'rushes[xformers]'"),
    Implementation.SAGE: ("sageattention", "pip install sageattention on a machine with an NVIDIA GPU"),
}


class OperatorUnavailableError(ValueError):
    """An implementation was asked for that this machine cannot run."""


_asked: ContextVar[Implementation | None] = ContextVar("asked", default=None)
_record: ContextVar[list[tuple[str, Implementation]] | None] = ContextVar("record", default=None)


@contextmanager
def using(implementation: Implementation) -> Iterator[None]:
    """Within it every operator runs as `implementation`; INTERPRETER runs the Triton twin on CPU tensors.

    What is for attention alone leaves the other operators as they are. OperatorUnavailableError when its package is
    missing, or Triton was loaded for the other way of running it.
    """
    _check_installed(implementation)
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


def asked() -> Implementation | None:
    """What `using` asked for, if anything."""
    return _asked.get()


def remember(ctx: Any) -> None:
    """Keeps in an autograd context what was asked for: a GPU's backward runs in a thread that knows nothing of it."""
    ctx.way, ctx.record = _asked.get(), _record.get()


@contextmanager
def as_remembered(ctx: Any) -> Iterator[None]:
    """Within it, in whatever thread, operators run and are recorded as where `remember` was called."""
    asked_token, record_token = _asked.set(ctx.way), _record.set(ctx.record)
    try:
        yield
    finally:
        _record.reset(record_token)
        _asked.reset(asked_token)


def chosen(operator: str, tensor: torch.Tensor, default: Implementation | None = None) -> Implementation:
    """What runs `operator` on `tensor`: what `using` asked for, else `default`.

    Without a default it is the twin on a GPU, the reference elsewhere. A library for one operator is nothing to others.
    """
    way = _asked.get()
    if way is not None and _FOR_ONE.get(way, operator) != operator:
        way = None
    if default is None:
        default = Implementation.TRITON if tensor.is_cuda and triton_installed() else Implementation.REFERENCE
    way = way or default
    ran = _record.get()
    if ran is not None:
        ran.append((operator, way))
    return way


def is_twin(implementation: Implementation) -> bool:
    """Whether the Triton twin computes, on a GPU or in the interpreter."""
    return implementation in {Implementation.TRITON, Implementation.INTERPRETER}


def installed(implementation: Implementation) -> bool:
    """Whether the package that `implementation` needs can be imported here."""
    package = _PACKAGES.get(implementation)
    return package is None or _found(package[0])


@cache
def _found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def triton_installed() -> bool:
    """Whether Triton can be imported here."""
    return installed(Implementation.TRITON)


def _check_installed(implementation: Implementation) -> None:
    if not installed(implementation):
        package, remedy = _PACKAGES[implementation]
        raise OperatorUnavailableError(f"{package} is not installed; {remedy}")


def _check_triton(*, interpreted: bool) -> None:
    # Triton reads the variable when a kernel is defined, so it decides for the whole process.
    if interpreted != interpreting():
        wanted = "set TRITON_INTERPRET=1" if interpreted else "unset TRITON_INTERPRET"
        raise OperatorUnavailableError(f"{wanted} before the process starts, to run Triton's kernels so")
    if not interpreted and not torch.cuda.is_available():
        raise OperatorUnavailableError(
            "torch sees no GPU here, so Triton's kernels cannot run; ask for the interpreter"
        )


def interpreting() -> bool:
    """Whether Triton was told to interpret its kernels, in any of the words that it takes for yes."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in {"1", "true", "yes", "on", "y"}
