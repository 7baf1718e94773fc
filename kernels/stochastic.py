"""A stochastic sampler's step, and how probable a step that was taken is: what policy gradients are made of.

See `reference.stochastic_step` for the formulas. Legend: B films, N values of a film's latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.dispatch import as_remembered, chosen, is_twin, remember
from kernels.flow_step import BLOCK, WARPS, grid_of, row_of, rows_of, wide_dtype
from kernels.launching import launch, pointers


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
    from kernels.gpu.stochastic import stochastic_kernel  # noqa: PLC0415  it loads Triton

    out = torch.empty_like(x, dtype=wide_dtype(x))
    blocks, films = grid_of(x)
    squares = torch.empty(films, blocks, dtype=wide_dtype(x), device=x.device)
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
        BLOCK=BLOCK,
        warps=WARPS,
    )
    return out, -0.5 * squares.sum(1) - reference.log_normalizer(x.shape[1], deviation)


@torch.library.custom_op("rushes::stochastic_score", mutates_args=())
def _stochastic_score(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    taken: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> Tensor:
    if not is_twin(chosen("stochastic_score", x)):
        return reference.stochastic_score(x, conditional, unconditional, guidance, taken, keep, pull, deviation)
    from kernels.gpu.stochastic import score_kernel  # noqa: PLC0415  it loads Triton

    blocks, films = grid_of(x)
    squares = torch.empty(films, blocks, dtype=torch.float32, device=x.device)
    launch(
        score_kernel,
        (blocks, films),
        *pointers(x, x, conditional, unconditional, guidance, taken),
        squares,
        x.shape[1],
        keep,
        pull,
        deviation,
        GUIDED=unconditional is not None,
        BLOCK=BLOCK,
        warps=WARPS,
    )
    return -0.5 * squares.sum(1) - reference.log_normalizer(x.shape[1], deviation)


@torch.library.custom_op("rushes::stochastic_score_backward", mutates_args=())
def _score_backward(
    gradient: Tensor,
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    taken: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> tuple[Tensor, Tensor]:
    """Of both velocities [B, N]; of an unconditional one that is not there an empty tensor."""
    if not is_twin(chosen("stochastic_score_backward", x)):
        ours, theirs = reference.stochastic_score_gradients(
            gradient, x, conditional, unconditional, guidance, taken, keep, pull, deviation
        )
        return ours, conditional.new_empty(0) if theirs is None else theirs
    from kernels.gpu.stochastic import score_backward_kernel  # noqa: PLC0415  it loads Triton

    ours = torch.empty_like(conditional)
    theirs = conditional.new_empty(0) if unconditional is None else torch.empty_like(unconditional)
    launch(
        score_backward_kernel,
        grid_of(x),
        *pointers(x, gradient, x, conditional, unconditional, guidance, taken, ours, theirs),
        x.shape[1],
        keep,
        pull,
        deviation,
        GUIDED=unconditional is not None,
        BLOCK=BLOCK,
        warps=WARPS,
    )
    return ours, theirs


@_stochastic_step.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=wide_dtype(x)), x.new_empty(len(x), dtype=wide_dtype(x))


@_stochastic_score.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(len(x), dtype=wide_dtype(x))


@_score_backward.register_fake
def _(gradient: Tensor, x: Tensor, conditional: Tensor, unconditional: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    theirs = conditional.new_empty(0) if unconditional is None else torch.empty_like(unconditional)
    return torch.empty_like(conditional), theirs


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  torch's signature
    *tensors, ctx.keep, ctx.pull, ctx.deviation = inputs
    ctx.save_for_backward(*tensors)
    remember(ctx)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    with as_remembered(ctx):
        ours, theirs = _score_backward(gradient.contiguous(), *tensors, ctx.keep, ctx.pull, ctx.deviation)
    return None, ours, None if tensors[2] is None else theirs, None, None, None, None, None


_stochastic_score.register_autograd(_gradients, setup_context=_keep)


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
    _check_deviation(deviation)
    rows = rows_of(x, conditional, unconditional, guidance)
    out, log_probability = _stochastic_step(*rows, row_of("noise", noise, x), keep, pull, deviation)
    return out.view(x.shape), log_probability


def stochastic_score(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None = None,
    guidance: Tensor | None = None,
    *,
    taken: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> Tensor:
    """The log-probability [B] of having gone from x to `taken`: log N(taken; keep x + pull v, deviation^2), in fp32.

    Gradients go to the velocities alone. ValueError where x, guidance or `taken` want one: a path that was taken is a
    fact, and its factor of guidance a setting.
    """
    _check_deviation(deviation)
    facts = {"x": x, "guidance": guidance, "taken": taken}
    for name, fact in facts.items():
        if fact is not None and fact.requires_grad:
            raise ValueError(f"{name} requires a gradient, and a score has none for it; detach it")
    rows = rows_of(x, conditional, unconditional, guidance)
    return _stochastic_score(*rows, row_of("step that was taken", taken, x), keep, pull, deviation)


def _check_deviation(deviation: float) -> None:
    if not deviation > 0:
        raise ValueError(f"the deviation is {deviation}; a draw with a log-probability needs one above zero")
