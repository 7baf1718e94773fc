"""Which arithmetic a training run uses on the machine it finds."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def best_precision() -> Precision:
    """bf16 where the processor has matrix units for it (AMX), else fp32: without them bf16 is emulated and slower."""
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"  # noqa: SLF001  torch has no public name for it


def named_precision(name: str) -> Precision:
    """The precision a user asked for by name."""
    if name == "fp32":
        return "fp32"
    if name == "bf16":
        return "bf16"
    raise ValueError(f"precision {name!r} is unknown; use fp32 or bf16")


def autocast(precision: Precision) -> contextlib.AbstractContextManager[object]:
    """The autocast region of `precision` on the CPU."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
