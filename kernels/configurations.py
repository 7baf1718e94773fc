"""How large a program's blocks are and how many warps compute it: what may be tried on each GPU, the best guess first.

Only operators that multiply matrices have a choice; the others hold a row a program. The first of a list is taken until
a GPU has been measured (`kernels.tuning`), so it must compile there without a spill; the others need not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Blocks by the names that the kernel has for them, warps of a program, and stages of its pipeline."""

    blocks: Mapping[str, int]
    warps: int
    stages: int


def _attention(*choices: tuple[int, int, int, int]) -> tuple[Configuration, ...]:
    return tuple(
        Configuration(blocks={"BLOCK_Q": q, "BLOCK_K": k}, warps=warps, stages=stages)
        for q, k, warps, stages in choices
    )


def _product(*choices: tuple[int, int, int, int, int]) -> tuple[Configuration, ...]:
    return tuple(
        Configuration(blocks={"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, warps=warps, stages=stages)
        for m, n, k, warps, stages in choices
    )


# GPUs with products that read shared memory and 227 KiB of it, those whose products read registers and have 99 KiB or
# little more, and AMD's with 64 KiB.
_LARGE, _SMALL, _AMD = "large", "small", "amd"
_KINDS = {
    "sm_80": _SMALL,
    "sm_89": _SMALL,
    "sm_90": _LARGE,
    "sm_100": _LARGE,
    "sm_120": _SMALL,
    "gfx942": _AMD,
    "gfx950": _AMD,
}
_CHOICES: dict[str, dict[str, tuple[Configuration, ...]]] = {
    "attention": {
        _LARGE: _attention((128, 64, 8, 2), (128, 128, 8, 2), (64, 64, 4, 3), (128, 64, 4, 2), (64, 128, 4, 2)),
        _SMALL: _attention((128, 32, 8, 3), (64, 32, 4, 3), (128, 64, 8, 2), (64, 64, 4, 2)),
        _AMD: _attention((128, 32, 8, 1), (64, 32, 4, 1), (128, 64, 8, 1), (64, 64, 4, 1)),
    },
    "quantized_linear": {
        _LARGE: _product((128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (128, 128, 128, 8, 3), (64, 128, 128, 4, 4)),
        _SMALL: _product((128, 128, 64, 8, 3), (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (64, 64, 128, 4, 3)),
        _AMD: _product((128, 128, 64, 8, 2), (128, 64, 64, 4, 2), (256, 128, 64, 8, 2), (64, 64, 128, 4, 2)),
    },
    "causal_conv3d": {
        _LARGE: _product((128, 64, 32, 4, 3), (128, 128, 32, 8, 3), (64, 128, 64, 4, 3), (256, 64, 32, 8, 3)),
        _SMALL: _product((128, 64, 32, 4, 3), (64, 64, 32, 4, 4), (128, 32, 32, 4, 4), (64, 128, 32, 4, 3)),
        _AMD: _product((128, 64, 32, 4, 2), (128, 128, 32, 8, 2), (64, 64, 32, 4, 2), (128, 32, 64, 4, 2)),
    },
}
NO_FP8 = frozenset({"sm_80", "sm_86"})
"""NVIDIA's GPUs that multiply no fp8."""

_CHOICES["int8_attention"] = _CHOICES["attention"]
TUNABLE = tuple(_CHOICES)
"""Operators that have a choice."""

_ROW_BYTES = 256  # of a head of 128 values in 16 bits, which the blocks of attention are chosen for
_LEAST_BLOCK = 16
# What was measured, by device: an engine on another GPU does not take it over.
_measured: dict[torch.device, dict[str, Configuration]] = {}


def configurations(operator: str, target: str) -> tuple[Configuration, ...]:
    """What may be tried for `operator` on a target of `aot.TARGETS`; another GPU is taken for a small one.

    ValueError for an operator that has no choice.
    """
    if operator not in _CHOICES:
        raise ValueError(f"operator {operator!r} has no configurations; {', '.join(TUNABLE)} have")
    return _CHOICES[operator][_KINDS.get(target, _AMD if target.startswith("gfx") else _SMALL)]


def configuration_of(operator: str, tensor: torch.Tensor) -> Configuration:
    """What `operator` runs with on the device of `tensor`: as it was measured there, else the best guess."""
    found = _measured.get(tensor.device, {}).get(operator)
    return found or configurations(operator, target_of(tensor.device))[0]


def use_measured(device: torch.device, found: Mapping[str, Configuration]) -> None:
    """Takes these on `device` from now on, in this process; operators that are not named go back to the best guess.

    int8 attention rounds by its blocks, so another configuration gives films that differ within its rounding.
    """
    _measured[device] = dict(found)


def narrowed(configuration: Configuration, row_bytes: int) -> Configuration:
    """One of attention's for heads of more bytes than 128 values in 16 bits: smaller blocks, or they do not fit."""
    factor = row_bytes // _ROW_BYTES
    if factor <= 1:
        return configuration
    return Configuration(
        blocks={name: max(_LEAST_BLOCK, size // factor) for name, size in configuration.blocks.items()},
        warps=configuration.warps,
        stages=1 if factor > 2 else min(2, configuration.stages),
    )


@cache
def target_of(device: torch.device) -> str:
    """The name of the GPU's architecture, sm_90 or gfx942; the interpreter on a CPU takes that of an A100."""
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
