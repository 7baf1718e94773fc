"""Guidance and a sampler's step in one pass over the latents; see `reference` for the formulas.

Apart, every sum and product reads and writes the latents anew; fused, each tensor is read or written once.
Legend: B films, N values of a film's latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import chosen, is_twin
from kernels.launching import launch, pointers

BLOCK, WARPS = 1024, 4
"""Values and warps of a program."""


@torch.library.custom_op("rushes::euler_step", mutates_args=())
def _euler_step(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None, change: float
) -> Tensor:
    if not is_twin(chosen("euler_step", x)):
        return reference.euler_step(x, conditional, unconditional, guidance, change)
    from kernels.gpu.flow_step import euler_kernel  # noqa: PLC0415  it loads Triton

    out = torch.empty_like(x, dtype=wide_dtype(x))
    tensors = pointers(x, x, conditional, unconditional, guidance)
    launch(
        euler_kernel,
        grid_of(x),
        *tensors,
        out,
        x.shape[1],
        change,
        GUIDED=unconditional is not None,
        BLOCK=BLOCK,
        warps=WARPS,
    )
    return out


@torch.library.custom_op("rushes::unipc_step", mutates_args=())
def _unipc_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    before: Tensor,
    newest: Tensor,
    older: Tensor,
    coefficients: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    if not is_twin(chosen("unipc_step", x)):
        return reference.unipc_step(x, conditional, unconditional, guidance, before, newest, older, list(coefficients))
    from kernels.gpu.flow_step import unipc_kernel  # noqa: PLC0415  it loads Triton

    clean, here, following = (torch.empty_like(x, dtype=wide_dtype(x)) for _ in range(3))
    launch(
        unipc_kernel,
        grid_of(x),
        *pointers(x, x, conditional, unconditional, guidance, before, newest, older),
        clean,
        here,
        following,
        x.shape[1],
        *coefficients,
        GUIDED=unconditional is not None,
        CORRECTS=any(coefficients[1:5]),
        BLOCK=BLOCK,
        warps=WARPS,
    )
    return clean, here, following


@_euler_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, dtype=wide_dtype(x))


@_unipc_step.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    clean, here, following = (torch.empty_like(x, dtype=wide_dtype(x)) for _ in range(3))
    return clean, here, following


def euler_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None = None,
    guidance: Tensor | None = None,
    *,
    change: float,
) -> Tensor:
    """x + change * v, with v guided by a factor [B] for each film; [B, ...] in fp32 (fp64 of fp64)."""
    rows = rows_of(x, conditional, unconditional, guidance)
    return _euler_step(*rows, change).view(x.shape)


def unipc_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None = None,
    guidance: Tensor | None = None,
    *,
    before: Tensor,
    newest: Tensor,
    older: Tensor,
    coefficients: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """The clean latents, the corrected ones that the step stands on, and the next; [B, ...] in fp32.

    `coefficients` are the eight of `reference.unipc_step`.
    """
    if len(coefficients) != 8:
        raise ValueError(f"there are {len(coefficients)} coefficients; a UniPC step has eight")
    rows = rows_of(x, conditional, unconditional, guidance)
    history = [row_of("history", h, x) for h in (before, newest, older)]
    clean, here, following = _unipc_step(*rows, *history, list(coefficients))
    return clean.view(x.shape), here.view(x.shape), following.view(x.shape)


def wide_dtype(x: Tensor) -> torch.dtype:
    """What steps give back: fp64 of fp64, for the proofs, and fp32 of all else."""
    return torch.promote_types(x.dtype, torch.float32)


def grid_of(x: Tensor) -> tuple[int, int]:
    """Programs by (block, film)."""
    return -(-x.shape[1] // BLOCK), len(x)


def rows_of(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Everything as rows [B, N]; ValueError where shapes differ or guidance lacks one of its two."""
    if (unconditional is None) != (guidance is None):
        raise ValueError("guidance needs both the unconditional velocity and a factor for each film")
    if guidance is not None and guidance.shape != x.shape[:1]:
        raise ValueError(f"guidance is {list(guidance.shape)}; {len(x)} films need [{len(x)}]")
    return (
        row_of("x", x, x),
        row_of("conditional velocity", conditional, x),
        None if unconditional is None else row_of("unconditional velocity", unconditional, x),
        None if guidance is None else guidance.contiguous(),
    )


def row_of(name: str, value: Tensor, x: Tensor) -> Tensor:
    """`value` as rows [B, N]; ValueError where its shape is not that of the latents."""
    if value.shape != x.shape:
        raise ValueError(f"the {name} is {list(value.shape)}, the latents are {list(x.shape)}")
    return value.flatten(1).contiguous()
