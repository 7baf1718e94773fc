"""The gated residual add that ends a block; see `reference.gated_residual`. B batch, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import chosen, is_twin
from kernels.launching import launch, next_power_of_2, pointers, warps_for
from kernels.modulated_norm import check_modulation, modulation_strides


@torch.library.custom_op("rushes::gated_residual", mutates_args=())
def _gated_residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    if not is_twin(chosen("gated_residual", x)):
        return reference.gated_residual(x, branch, gate)
    from kernels.gpu.residual import gated_residual as kernel  # noqa: PLC0415  it loads Triton

    out, (batch, tokens, width) = torch.empty_like(x), x.shape
    block = next_power_of_2(width)
    launch(
        kernel,
        (tokens, batch),
        *pointers(x, x, branch, gate, out),
        tokens,
        width,
        *modulation_strides(gate),
        GATE=gate is not None,
        BLOCK=block,
        warps=warps_for(block),
    )
    return out


@_gated_residual.register_fake
def _(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:  # noqa: ARG001  torch's signature
    return torch.empty_like(x)


def gated_residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """x + gate * branch, [B, L, D] in the dtype of `x`; a gate is [B, 1, D] or [B, L, D].

    ValueError for shapes that do not belong together.
    """
    if x.ndim != 3 or branch.shape != x.shape:
        raise ValueError(
            f"the branch is {list(branch.shape)} and x {list(x.shape)}; both must be [batch, tokens, width]"
        )
    check_modulation("gate", gate, x)
    return _gated_residual(x.contiguous(), branch.contiguous(), None if gate is None else gate.contiguous())


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:  # noqa: ARG001
    _, branch, gate = inputs
    ctx.save_for_backward(branch, gate)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    branch, gate = ctx.saved_tensors
    if gate is None:
        return gradient, gradient.to(branch.dtype), None
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    of_gate = wide * branch
    of_gate = of_gate if gate.shape[1] > 1 else of_gate.sum(1, keepdim=True)
    return gradient, (wide * gate).to(branch.dtype), of_gate.to(gate.dtype)


_gated_residual.register_autograd(_gradients, setup_context=_keep)
