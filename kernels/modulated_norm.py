"""Norm with adaLN modulation, and the gated residual add fused with the next norm; see `reference` for the formulas.

Fused, a block reads the residual and a branch once and writes the residual and its norm once.
Legend: B batch, L tokens, D width; a modulation is [B, 1, D] or [B, L, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import as_remembered, chosen, is_twin, remember
from kernels.launching import launch, next_power_of_2, pointers, warps_for

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_ROWS = 16  # tokens a backward program sums over
_MOST_WIDTH = 16_384


@torch.library.custom_op("rushes::modulated_norm", mutates_args=())
def _modulated_norm(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> Tensor:
    if not is_twin(chosen("modulated_norm", x)):
        return reference.modulated_norm(x, scale, shift, weight, bias, eps, rms=rms)
    out = torch.empty_like(x)
    launch_norm(x, None, None, scale, shift, weight, bias, None, out, eps, rms=rms)
    return out


@torch.library.custom_op("rushes::gated_norm", mutates_args=())
def _gated_norm(
    x: Tensor,
    branch: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> tuple[Tensor, Tensor]:
    if not is_twin(chosen("gated_norm", x)):
        residual = reference.gated_residual(x, branch, gate)
        return residual, reference.modulated_norm(residual, scale, shift, weight, bias, eps, rms=rms)
    residual, out = torch.empty_like(x), torch.empty_like(x)
    launch_norm(x, branch, gate, scale, shift, weight, bias, residual, out, eps, rms=rms)
    return residual, out


@torch.library.custom_op("rushes::norm_backward", mutates_args=())
def _norm_backward(
    gradient: Tensor,
    residual_gradient: Tensor | None,
    residual: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of x, branch, gate, scale, shift, weight and bias; the last five are summed over what shares them.

    What there is none of gets an empty tensor.
    """
    if is_twin(chosen("norm_backward", gradient)):
        return _backward(gradient, residual_gradient, residual, branch, gate, scale, weight, bias, eps, rms=rms)
    dx, dscale, dshift, dweight, dbias = reference.modulated_norm_gradients(
        gradient, residual, scale, weight, bias, eps, rms=rms
    )
    if residual_gradient is not None:
        dx = dx + residual_gradient
    dbranch = None if branch is None else (dx.clone() if gate is None else dx * gate).to(branch.dtype)
    dgate = None if gate is None or branch is None else _summed(dx * branch, gate)
    return _present(
        gradient,
        dx.to(residual.dtype),
        dbranch,
        dgate,
        None if scale is None else _summed(dscale, scale),
        # Per token it is the gradient that came in, and an operator gives back no tensor that it was given.
        None if scale is None else _summed(dshift, scale).clone(),
        None if weight is None else dweight.sum((0, 1)).to(weight.dtype),
        None if bias is None else dbias.sum((0, 1)).to(bias.dtype),
    )


def modulated_norm(
    x: Tensor,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    rms: bool = False,
) -> Tensor:
    """norm(x) * weight + bias, then * (1 + scale) + shift, [B, L, D] in the dtype of `x`.

    ValueError for shapes that do not belong together. Scale and shift come together or not at all.
    """
    check_norm(x, scale, shift, weight, bias)
    return _modulated_norm(x.contiguous(), *_contiguous(scale, shift, weight, bias), eps, rms)


def gated_norm(
    x: Tensor,
    branch: Tensor,
    gate: Tensor | None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    rms: bool = False,
) -> tuple[Tensor, Tensor]:
    """The residual x + gate * branch, and its modulated norm, both [B, L, D] in the dtype of `x`."""
    check_norm(x, scale, shift, weight, bias)
    if branch.shape != x.shape:
        raise ValueError(f"the branch is {list(branch.shape)} and x {list(x.shape)}; they are added")
    check_modulation("gate", gate, x)
    (gate,) = _contiguous(gate)
    return _gated_norm(x.contiguous(), branch.contiguous(), gate, *_contiguous(scale, shift, weight, bias), eps, rms)


@_modulated_norm.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@_gated_norm.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@_norm_backward.register_fake
def _(
    gradient: Tensor,
    _: Tensor | None,
    residual: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *rest: Any,  # noqa: ARG001  eps and rms
) -> Gradients:
    like = (residual, branch, gate, scale, scale, weight, bias)
    return _present(gradient, *(None if t is None else torch.empty_like(t) for t in like))


def _keep_modulated(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  torch's signature
    x, scale, _, weight, bias, ctx.eps, ctx.rms = inputs
    remember(ctx)
    ctx.save_for_backward(x, scale, weight, bias)


def _modulated_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    x, scale, weight, bias = ctx.saved_tensors
    with as_remembered(ctx):
        dx, _, _, *rest = _norm_backward(
            gradient.contiguous(), None, x, None, None, scale, weight, bias, ctx.eps, ctx.rms
        )
    return (dx, *_where_present(rest, scale, weight, bias), None, None)


def _keep_gated(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, branch, gate, scale, _, weight, bias, ctx.eps, ctx.rms = inputs
    remember(ctx)
    ctx.save_for_backward(output[0], branch, gate, scale, weight, bias)


def _gated_gradients(ctx: Any, residual_gradient: Tensor, gradient: Tensor) -> tuple[Any, ...]:
    residual, branch, gate, scale, weight, bias = ctx.saved_tensors
    gradients = gradient.contiguous(), residual_gradient.contiguous()
    with as_remembered(ctx):
        dx, dbranch, dgate, *rest = _norm_backward(
            *gradients, residual, branch, gate, scale, weight, bias, ctx.eps, ctx.rms
        )
    return (dx, dbranch, None if gate is None else dgate, *_where_present(rest, scale, weight, bias), None, None)


def _where_present(
    gradients: Sequence[Tensor], scale: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> list[Tensor | None]:
    """Gradients of scale, shift, weight and bias, None for what there is none of."""
    whose = (scale, scale, weight, bias)
    return [None if of is None else gradient for gradient, of in zip(gradients, whose, strict=True)]


_modulated_norm.register_autograd(_modulated_gradients, setup_context=_keep_modulated)
_gated_norm.register_autograd(_gated_gradients, setup_context=_keep_gated)


def launch_norm(
    x: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    eps: float,
    *,
    rms: bool,
    out_scales: Tensor | None = None,
) -> None:
    """Fills `out` [B, L, D], and `residual` where there is a branch; with `out_scales` [B, L] out is of 8 bits."""
    from kernels.gpu.norm import norm_forward  # noqa: PLC0415  it loads Triton

    batch, tokens, width = x.shape
    block = next_power_of_2(width)
    launch(
        norm_forward,
        (tokens, batch),
        *pointers(x, x, branch, gate, scale, shift, weight, bias, residual, out, out_scales),
        tokens,
        width,
        *modulation_strides(gate),
        *modulation_strides(scale),
        eps,
        BRANCH=branch is not None,
        GATE=gate is not None,
        SCALE=scale is not None,
        SHIFT=shift is not None,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        RMS=rms,
        QUANTIZE=out_scales is not None,
        BLOCK=block,
        warps=warps_for(block),
    )


def _backward(
    gradient: Tensor,
    residual_gradient: Tensor | None,
    residual: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
) -> Gradients:
    from kernels.gpu.norm import norm_backward  # noqa: PLC0415  it loads Triton

    batch, tokens, width = residual.shape
    each = any(m is not None and m.shape[1] > 1 for m in (gate, scale))
    rows = 1 if each else _ROWS
    parts = -(-tokens // rows)
    dx, dbranch = torch.empty_like(residual), None if branch is None else torch.empty_like(branch)
    of = {"gate": gate, "scale": scale, "shift": scale, "weight": weight, "bias": bias}
    sums = {
        name: gradient.new_empty((0,) if value is None else (batch, parts, width), dtype=torch.float32)
        for name, value in of.items()
    }
    block = next_power_of_2(width)
    launch(
        norm_backward,
        (parts, batch),
        *pointers(gradient, gradient, residual_gradient, residual, branch, gate, scale, weight, bias, dx, dbranch),
        *sums.values(),
        tokens,
        width,
        *modulation_strides(gate),
        *modulation_strides(scale),
        eps,
        BRANCH=branch is not None,
        GATE=gate is not None,
        SCALE=scale is not None,
        SHIFT=scale is not None,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        RMS=rms,
        ROWS=rows,
        BLOCK=block,
        warps=warps_for(block),
    )
    return _present(
        gradient,
        dx,
        dbranch,
        None if gate is None else _summed(sums["gate"], gate),
        None if scale is None else _summed(sums["scale"], scale),
        None if scale is None else _summed(sums["shift"], scale),
        None if weight is None else sums["weight"].sum((0, 1)).to(weight.dtype),
        None if bias is None else sums["bias"].sum((0, 1)).to(bias.dtype),
    )


def _present(like: Tensor, *tensors: Tensor | None) -> Gradients:
    """`tensors` with an empty one for each that is missing: an operator's schema knows no optional results."""
    dx, branch, gate, scale, shift, weight, bias = (like.new_empty(0) if t is None else t for t in tensors)
    return dx, branch, gate, scale, shift, weight, bias


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient of a modulation from those of every token [B, L, D], or of groups of them."""
    whole = gradient if like.shape[1] > 1 else gradient.sum(1, keepdim=True)
    return whole.to(like.dtype)


def modulation_strides(modulation: Tensor | None) -> tuple[int, int]:
    """From batch to batch and from token to token; 0 over tokens where a batch shares one."""
    if modulation is None:
        return 0, 0
    return modulation.stride(0), modulation.stride(1) if modulation.shape[1] > 1 else 0


def _contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if t is None else t.contiguous() for t in tensors)


def check_norm(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> None:
    """ValueError for shapes that do not belong together, or a row too wide for one program."""
    if x.ndim != 3 or x.shape[-1] > _MOST_WIDTH:
        raise ValueError(f"x is {list(x.shape)}; it must be [batch, tokens, width] with a width up to {_MOST_WIDTH}")
    if (scale is None) != (shift is None) or (scale is not None and shift is not None and scale.shape != shift.shape):
        raise ValueError("scale and shift come together and in one shape")
    check_modulation("scale", scale, x)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(f"the {name} is {list(vector.shape)}; x of {list(x.shape)} needs [{x.shape[-1]}]")


def check_modulation(name: str, modulation: Tensor | None, x: Tensor) -> None:
    """ValueError unless a modulation of x [B, L, D] is [B, 1, D] or [B, L, D]."""
    batch, tokens, width = x.shape
    if modulation is not None and tuple(modulation.shape) not in {(batch, 1, width), (batch, tokens, width)}:
        raise ValueError(
            f"the {name} is {list(modulation.shape)}; x of {list(x.shape)} needs [{batch}, 1 or {tokens}, {width}]"
        )
