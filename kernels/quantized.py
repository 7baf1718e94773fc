"""Linear layers in 8 bits: rows rounded as the norm before makes them, and the product with all that follows it.

See `reference.quantized_linear` for the formulas. Legend: B batch, L tokens, K values in, N values out. Both 8-bit
formats of `reference.LARGEST` are taken. For inference: no gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.configurations import NO_FP8, configuration_of, target_of
from kernels.dispatch import OperatorUnavailableError, chosen, is_twin
from kernels.launching import launch, next_power_of_2, pointers, warps_for
from kernels.modulated_norm import check_modulation, check_norm, launch_norm, modulation_strides

_GROUP = 8  # rows of blocks that go through the weights together
_MOST_WIDTH = 32_768


@dataclass(frozen=True, slots=True)
class Quantized:
    """Values [..., K] of 8 bits, and a scale for each row [...]: the number meant is value * scale."""

    values: Tensor
    scales: Tensor


@torch.library.custom_op("rushes::quantize_rows", mutates_args=())
def _quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if not is_twin(chosen("quantize_rows", x)):
        return reference.quantized_rows(x, dtype)
    from kernels.gpu.quantized import quantize_rows as kernel  # noqa: PLC0415  it loads Triton

    _check_here(x, dtype)
    out, scales = torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)
    block = next_power_of_2(x.shape[-1])
    launch(kernel, (scales.numel(),), x, out, scales, x.shape[-1], BLOCK=block, warps=warps_for(block))
    return out, scales


@torch.library.custom_op("rushes::quantized_norm", mutates_args=())
def _quantized_norm(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    if not is_twin(chosen("quantized_norm", x)):
        wide = reference.modulated_norm(reference.wide_of(x), scale, shift, weight, bias, eps, rms=rms)
        return reference.quantized_rows(wide, dtype)
    _check_here(x, dtype)
    out, scales = torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)
    launch_norm(x, None, None, scale, shift, weight, bias, None, out, eps, rms=rms, out_scales=scales)
    return out, scales


@torch.library.custom_op("rushes::quantized_linear", mutates_args=())
def _quantized_linear(
    x: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    dtype: torch.dtype,
    gelu: bool,
) -> Tensor:
    if not is_twin(chosen("quantized_linear", x)):
        return reference.quantized_linear(x, x_scales, weight, weight_scales, bias, residual, gate, dtype, gelu=gelu)
    _check_here(x, x.dtype)
    return _launch(x, x_scales, weight, weight_scales, bias, residual, gate, dtype, gelu=gelu)


@_quantize_rows.register_fake
def _(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=dtype), _scales_like(x)


@_quantized_norm.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=rest[-1]), _scales_like(x)


@_quantized_linear.register_fake
def _(x: Tensor, x_scales: Tensor, weight: Tensor, *rest: Any) -> Tensor:  # noqa: ARG001  torch's signature
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=rest[-2])


def quantize_rows(x: Tensor, dtype: torch.dtype = torch.int8) -> Quantized:
    """x [..., K] with a scale for each row; of a weight [N, K] that is a scale for each output channel."""
    _check_format(dtype)
    if not x.ndim or not 0 < x.shape[-1] <= _MOST_WIDTH:
        raise ValueError(f"x is {list(x.shape)}; its rows must have 1 to {_MOST_WIDTH} values")
    return Quantized(*_quantize_rows(x.contiguous(), dtype))


def quantized_norm(
    x: Tensor,
    dtype: torch.dtype = torch.int8,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    rms: bool = False,
) -> Quantized:
    """`modulated_norm` of x [B, L, D], rounded to 8 bits before it leaves the registers."""
    _check_format(dtype)
    check_norm(x, scale, shift, weight, bias)
    rows = (None if t is None else t.contiguous() for t in (scale, shift, weight, bias))
    return Quantized(*_quantized_norm(x.contiguous(), *rows, eps, rms, dtype))


def quantized_linear(
    x: Quantized,
    weight: Quantized,
    bias: Tensor | None = None,
    *,
    dtype: torch.dtype,
    gelu: bool = False,
    residual: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """residual + gate * gelu(x w^T + bias), [B, L, N] in `dtype`, of x [B, L, K] and a weight [N, K].

    A gate is [B, 1, N] or [B, L, N]. ValueError for shapes or formats that do not fit.
    """
    _check_format(x.values.dtype)
    _check_linear(x.values, weight.values, bias, residual, gate)
    for name, side in (("x", x), ("weight", weight)):
        if side.scales.shape != side.values.shape[:-1] or not side.scales.is_floating_point():
            raise ValueError(
                f"the scales of {name} are {list(side.scales.shape)} of {side.scales.dtype}; "
                f"values of {list(side.values.shape)} need {list(side.values.shape[:-1])} of floats"
            )
    rest = (None if t is None else t.contiguous() for t in (bias, residual, gate))
    sides = (t.contiguous() for side in (x, weight) for t in (side.values, side.scales))
    return _quantized_linear(*sides, *rest, dtype, gelu)


def _launch(
    x: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    dtype: torch.dtype,
    *,
    gelu: bool,
) -> Tensor:
    from kernels.gpu.quantized import quantized_linear as kernel  # noqa: PLC0415  it loads Triton

    batch, tokens, n_in = x.shape
    rows, n_out = batch * tokens, weight.shape[0]
    out = x.new_empty((batch, tokens, n_out), dtype=dtype)
    configuration = configuration_of("quantized_linear", x)
    blocks = configuration.blocks
    launch(
        kernel,
        (-(-rows // blocks["BLOCK_M"]) * -(-n_out // blocks["BLOCK_N"]),),
        *(x, x_scales, weight, weight_scales),
        *pointers(x_scales, bias, residual, gate, out),
        rows,
        n_out,
        n_in,
        tokens,
        *modulation_strides(gate),
        BIAS=bias is not None,
        GELU=gelu,
        RESIDUAL=residual is not None,
        GATE=gate is not None,
        GROUP=_GROUP,
        **blocks,
        warps=configuration.warps,
        stages=configuration.stages,
    )
    return out


def _scales_like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.promote_types(x.dtype, torch.float32))


def _check_format(dtype: torch.dtype) -> None:
    if dtype not in reference.LARGEST:
        raise ValueError(f"{dtype} is no 8-bit format; use {' or '.join(str(d) for d in reference.LARGEST)}")


def _check_here(x: Tensor, dtype: torch.dtype) -> None:
    """OperatorUnavailableError where the GPU that holds `x` has no fp8 and that is what is asked."""
    if x.is_cuda and dtype.is_floating_point and target_of(x.device) in NO_FP8:
        raise OperatorUnavailableError(f"{torch.cuda.get_device_name(x.device)} has no fp8; use torch.int8")


def _check_linear(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, gate: Tensor | None) -> None:
    if x.ndim != 3 or weight.ndim != 2 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(
            f"x is {list(x.shape)} of {x.dtype} and the weight {list(weight.shape)} of {weight.dtype}; "
            "they must be [batch, tokens, in] and [out, in] of one format"
        )
    n_out = weight.shape[0]
    if bias is not None and bias.shape != (n_out,):
        raise ValueError(f"the bias is {list(bias.shape)}; the weight needs [{n_out}]")
    out = x.new_empty((*x.shape[:-1], n_out), device="meta")
    if residual is not None and residual.shape != out.shape:
        raise ValueError(f"the residual is {list(residual.shape)} and the product {list(out.shape)}; they are added")
    check_modulation("gate", gate, out)
