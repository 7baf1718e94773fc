"""Queries and keys made ready for attention: RMS norm across heads and 3-D rotary embedding in one pass.

See `reference.qk_norm_rope` for the formula. Legend: B batch, L tokens, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import chosen, is_twin
from kernels.launching import launch, next_power_of_2, pointers, warps_for


@torch.library.custom_op("rushes::qk_norm_rope", mutates_args=())
def _qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    if not is_twin(chosen("qk_norm_rope", q)):
        return reference.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, heads, eps)
    return _launch(q, k, q_weight, k_weight, cos, sin, heads, eps)


@_qk_norm_rope.register_fake
def _(q: Tensor, k: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    heads = rest[4]
    return torch.empty_like(q).unflatten(2, (heads, -1)), torch.empty_like(k).unflatten(2, (heads, -1))


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    *,
    heads: int,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """q and k [B, L, H E], normalised across heads by weights [H E] and turned by cos, sin [L, E / 2]: [B, L, H, E].

    Without angles they are normalised only, and may differ in length. ValueError for shapes that do not fit.
    """
    width = q.shape[-1]
    if heads < 1 or q.ndim != 3 or k.ndim != 3 or k.shape[-1] != width or width % (2 * heads) or q.dtype != k.dtype:
        raise ValueError(
            f"q is {list(q.shape)} of {q.dtype} and k {list(k.shape)} of {k.dtype}; both must be "
            f"[batch, tokens, width] of one dtype, with a width of {heads} even heads"
        )
    if q_weight.shape != (width,) or k_weight.shape != (width,):
        raise ValueError(f"the weights are {list(q_weight.shape)} and {list(k_weight.shape)}; both must be [{width}]")
    if (cos is None) != (sin is None):
        raise ValueError("cos and sin come together or not at all")
    wanted = (q.shape[1], width // heads // 2)
    if cos is not None and sin is not None and (q.shape[1] != k.shape[1] or {cos.shape, sin.shape} != {wanted}):
        raise ValueError(
            f"angles {list(cos.shape)} and {list(sin.shape)} do not turn q {list(q.shape)} and k {list(k.shape)}; "
            f"all need one length, and angles {list(wanted)}"
        )
    return _qk_norm_rope(q.contiguous(), k.contiguous(), q_weight, k_weight, cos, sin, heads, eps)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001  torch's signature
    q, k, q_weight, k_weight, cos, sin, ctx.heads, ctx.eps = inputs
    ctx.save_for_backward(q, k, q_weight, k_weight, cos, sin)


def _gradients(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Any, ...]:
    """Turned back by the opposite angle, and then the gradients of a norm with a weight."""
    q, k, q_weight, k_weight, cos, sin = ctx.saved_tensors
    found = []
    for x, weight, gradient in ((q, q_weight, dq), (k, k_weight, dk)):
        # Wide from here on: rounded between the two, a gradient in bf16 would lose half of its digits again.
        wide = reference.wide_of(gradient)
        flat = (wide if cos is None else reference.rotated(wide, cos, -sin)).flatten(2)
        dx, _, _, dweight, _ = reference.modulated_norm_gradients(flat, x, None, weight, None, ctx.eps, rms=True)
        found.append((dx.to(x.dtype), dweight.sum((0, 1)).to(weight.dtype)))
    (grad_q, grad_q_weight), (grad_k, grad_k_weight) = found
    return grad_q, grad_k, grad_q_weight, grad_k_weight, None, None, None, None


_qk_norm_rope.register_autograd(_gradients, setup_context=_keep)


def _launch(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    from kernels.gpu.rope import qk_norm_rope_forward  # noqa: PLC0415  it loads Triton

    width = q.shape[-1]
    outs = torch.empty_like(q), torch.empty_like(k)
    q_rows, k_rows = (x.shape[0] * x.shape[1] for x in (q, k))
    block = next_power_of_2(width // 2)
    # Read where they lie: diffusers has each angle twice over, and a copy of every other one would cost more.
    angle_strides = (0, 0) if cos is None or sin is None else (cos.stride(0), cos.stride(1))
    if cos is not None and sin is not None and sin.stride() != cos.stride():
        sin = sin.contiguous()
        cos, angle_strides = cos.contiguous(), sin.stride()
    launch(
        qk_norm_rope_forward,
        (q_rows + k_rows,),
        *pointers(q, q, k, q_weight.contiguous(), k_weight.contiguous(), cos, sin, *outs),
        q_rows,
        q.shape[1],
        width,
        width // heads // 2,
        *angle_strides,
        eps,
        ROPE=cos is not None,
        BLOCK=block,
        warps=warps_for(2 * block),
    )
    q_out, k_out = (x.unflatten(2, (heads, -1)) for x in outs)
    return q_out, k_out
