"""The forms in which a linear layer is computed or kept in fewer bits: one arithmetic for measuring and for building.

N output channels, D input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engines.quantization import nvfp4

Form = Literal["int8", "int8-static", "fp8", "nvfp4", "int8-weights", "int4-weights"]
"""`int8` is W8A8 with inputs scaled at every call, `int8-static` and `fp8` (E4M3) with input scales from calibration.

`nvfp4` is W4A4 (`engines.quantization.nvfp4`): blocks of inputs are scaled at every call, the whole by calibration. The
last two keep weights in fewer bits and multiply in floating point: less to store and to read, nothing to calibrate.
"""
WEIGHTS_ALONE: frozenset[Form] = frozenset({"int8-weights", "int4-weights"})
STATIC_INPUTS: frozenset[Form] = frozenset({"int8-static", "fp8"})
BYTE_SUMS: frozenset[Form] = frozenset({"int8", "int8-static"})
BLOCKS: dict[Form, int] = {"int4-weights": 32, "nvfp4": nvfp4.BLOCK}
"""Input channels that share one scale of weights, where not all of an output channel do."""

_FP8_LARGEST, _INT8_LARGEST, _INT4_LARGEST = 448.0, 127, 7
_LEAST = 1e-7
# Of an int4 block, cutting its largest weights a little may cost less than coarser steps for all of them.
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayers:
    """A part's layers in `form`, by name with the largest input that each was seen with, smoothed as it is fed."""

    form: Form
    largest: Mapping[str, float]

    @property
    def names(self) -> frozenset[str]:
        """The layers."""
        return frozenset(self.largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedWeight:
    """Steps [N, D] of `scale` [N, D / channels that share one].

    Steps are int8, also where they are of 4 bits, or float8, or numbers that E2M1 has; `whole` is NVFP4's scale of all.
    """

    steps: Tensor
    scale: Tensor
    whole: float = 1.0

    @property
    def value(self) -> Tensor:
        """What they stand for, float32 [N, D]."""
        shared = self.steps.shape[1] // self.scale.shape[1]
        return self.steps.float() * self.scale.repeat_interleave(shared, dim=1)


def bears(weight: Tensor, form: Form) -> bool:
    """Whether a weight [N, D] divides into the blocks of a form."""
    return weight.shape[1] % BLOCKS.get(form, 1) == 0


def rounded_weight(weight: Tensor, form: Form, *, bits: int = 8) -> RoundedWeight:
    """A weight [N, D] in a form: one scale an output channel, or one a block of input channels for int4."""
    exact = weight.detach().float()
    if form == "fp8":
        scale = exact.abs().amax(1, keepdim=True).clamp(min=_LEAST) / _FP8_LARGEST
        return RoundedWeight(steps=(exact / scale).to(torch.float8_e4m3fn), scale=scale)
    if form == "int4-weights":
        return _rounded_blocks(exact)
    if form == "nvfp4":
        whole = nvfp4.tensor_scale(float(exact.abs().max()))
        steps, scale = nvfp4.blocks_rounded(exact, whole)
        return RoundedWeight(steps=steps, scale=scale, whole=whole)
    largest = _INT8_LARGEST if bits == 8 else 2 ** (bits - 1) - 1
    scale = exact.abs().amax(1, keepdim=True).clamp(min=_LEAST) / largest
    return RoundedWeight(steps=(exact / scale).round().clamp(-largest, largest).to(torch.int8), scale=scale)


def rounded_input(x: Tensor, form: Form, largest: float) -> Tensor:
    """A layer's input as a form has it; `largest` is what calibration saw."""
    if form in WEIGHTS_ALONE:
        return x
    if form == "fp8":
        scale = input_scale(largest, form)
        return (x / scale).clamp(-_FP8_LARGEST, _FP8_LARGEST).to(torch.float8_e4m3fn).to(x.dtype) * scale
    if form == "nvfp4":
        steps, scales = nvfp4.blocks_rounded(x, nvfp4.tensor_scale(largest))
        return (steps * scales.repeat_interleave(nvfp4.BLOCK, dim=-1)).to(x.dtype)
    if form == "int8-static":
        scale = input_scale(largest, form)
        return (x / scale).round().clamp(-_INT8_LARGEST - 1, _INT8_LARGEST) * scale
    # Between the least and the largest value, zero included, in 255 steps: as ONNX's DynamicQuantizeLinear has it.
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30)
    zero = (-low / step).round()
    return (((x / step).round() + zero).clamp(0, 255) - zero) * step


def input_scale(largest: float, form: Form) -> float:
    """The one step of a static form's inputs."""
    return max(largest / (_FP8_LARGEST if form == "fp8" else _INT8_LARGEST), _LEAST)


def _rounded_blocks(exact: Tensor) -> RoundedWeight:
    blocks = exact.unflatten(1, (-1, BLOCKS["int4-weights"]))
    largest = blocks.abs().amax(2, keepdim=True).clamp(min=_LEAST)
    best_error = torch.full_like(largest, torch.inf)
    best_scale = largest / _INT4_LARGEST
    for cut in _CUTS:
        scale = largest * cut / _INT4_LARGEST
        error = (_steps_of(blocks, scale) * scale - blocks).square().sum(2, keepdim=True)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
    steps = _steps_of(blocks, best_scale).to(torch.int8)
    return RoundedWeight(steps=steps.flatten(1), scale=best_scale.squeeze(2))


def _steps_of(blocks: Tensor, scale: Tensor) -> Tensor:
    return (blocks / scale).round().clamp(-_INT4_LARGEST - 1, _INT4_LARGEST)
