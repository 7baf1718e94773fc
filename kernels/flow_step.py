"""Guidance and a sampler's step in one pass over the latents; see `reference` for the formulas.

Apart, every sum and product reads and writes the latents anew; fused, each tensor is read or written once.
Legend: B films, N values of a film's latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import chosen, is_twin
from kernels.launching import launch, pointers

_BLOCK = 1024
_WARPS = 4


@torch.library.custom_op("rushes::euler_step", mutates_args=())
def _euler_step(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None, change: float
) -> Tensor:
    if not is_twin(chosen("euler_step", x)):
        return reference.euler_step(x, conditional, unconditional, guidance, change)
    from kernels.gpu.flow_step import euler_kernel  # noqa: PLC0415  it loads Triton

    out = torch.empty_like(x, dtype=_wide(x))
    tensors = pointers(x, x, conditional, unconditional, guidance)
    launch(
        euler_kernel,
        _grid(x),
        *tensors,
        out,
        x.shape[1],
        change,
        GUIDED=unconditional is not None,
        BLOCK=_BLOCK,
        warps=_WARPS,
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

    clean, here, following = (torch.empty_like(x, dtype=_wide(x)) for _ in range(3))
    launch(
        unipc_kernel,
        _grid(x),
        *pointers(x, x, conditional, unconditional, guidance, before, newest, older),
        clean,
        here,
        following,
        x.shape[1],
        *coefficients,
        GUIDED=unconditional is not None,
        CORRECTS=any(coefficients[1:5]),
        BLOCK=_BLOCK,
        warps=_WARPS,
    )
    return clean, here, following


@torch.library.custom_op("rushes::stochastic_step", mutates_args=())
def _stochastic_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    noise: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> tuple[Tensor, Tensor]:
    if not is_twin(chosen("stochastic_step", x)):
        return reference.stochastic_step(x, conditional, unconditional, guidance, noise, keep, pull, deviation)
    from kernels.gpu.flow_step import stochastic_kernel  # noqa: PLC0415  it loads Triton

    out = torch.empty_like(x, dtype=_wide(x))
    blocks, films = _grid(x)
    squares = torch.empty(films, blocks, dtype=_wide(x), device=x.device)
    launch(
        stochastic_kernel,
        (blocks, films),
        *pointers(x, x, conditional, unconditional, guidance),
        noise,
        out,
        squares,
        x.shape[1],
        keep,
        pull,
        deviation,
        GUIDED=unconditional is not None,
        BLOCK=_BLOCK,
        warps=_WARPS,
    )
    constant = x.shape[1] * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    return out, -0.5 * squares.sum(1) - constant


@_euler_step.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, dtype=_wide(x))


@_unipc_step.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    clean, here, following = (torch.empty_like(x, dtype=_wide(x)) for _ in range(3))
    return clean, here, following


@_stochastic_step.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=_wide(x)), x.new_empty(len(x), dtype=_wide(x))


def euler_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None = None,
    guidance: Tensor | None = None,
    *,
    change: float,
) -> Tensor:
    """x + change * v, with v guided by a factor [B] for each film; [B, ...] in fp32 (fp64 of fp64)."""
    rows = _rows(x, conditional, unconditional, guidance)
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
    rows = _rows(x, conditional, unconditional, guidance)
    history = [_row("history", h, x) for h in (before, newest, older)]
    clean, here, following = _unipc_step(*rows, *history, list(coefficients))
    return clean.view(x.shape), here.view(x.shape), following.view(x.shape)


def stochastic_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None = None,
    guidance: Tensor | None = None,
    *,
    noise: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> tuple[Tensor, Tensor]:
    """A draw from N(keep x + pull v, deviation^2) by `noise`, [B, ...], and its log-probability [B]; both in fp32."""
    if deviation <= 0:
        raise ValueError(f"the deviation is {deviation}; a draw with a log-probability needs one above zero")
    rows = _rows(x, conditional, unconditional, guidance)
    out, log_probability = _stochastic_step(*rows, _row("noise", noise, x), keep, pull, deviation)
    return out.view(x.shape), log_probability


def _wide(x: Tensor) -> torch.dtype:
    """What steps give back: fp64 of fp64, for the proofs, and fp32 of all else."""
    return torch.promote_types(x.dtype, torch.float32)


def _grid(x: Tensor) -> tuple[int, int]:
    return -(-x.shape[1] // _BLOCK), len(x)


def _rows(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Everything as rows [B, N]; ValueError where shapes differ or guidance lacks one of its two."""
    if (unconditional is None) != (guidance is None):
        raise ValueError("guidance needs both the unconditional velocity and a factor for each film")
    if guidance is not None and guidance.shape != x.shape[:1]:
        raise ValueError(f"guidance is {list(guidance.shape)}; {len(x)} films need [{len(x)}]")
    return (
        _row("x", x, x),
        _row("conditional velocity", conditional, x),
        None if unconditional is None else _row("unconditional velocity", unconditional, x),
        None if guidance is None else guidance.contiguous(),
    )


def _row(name: str, value: Tensor, x: Tensor) -> Tensor:
    if value.shape != x.shape:
        raise ValueError(f"the {name} is {list(value.shape)}, the latents are {list(x.shape)}")
    return value.flatten(1).contiguous()
