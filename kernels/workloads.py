"""Each operator as one forward of Wan calls it, at full size on a GPU: what is measured, and what is tuned by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kernels.attention import attention, int8_attention
from kernels.configurations import NO_FP8, target_of
from kernels.conv3d import causal_conv3d
from kernels.flow_step import euler_step, unipc_step
from kernels.modulated_norm import gated_norm, modulated_norm
from kernels.quantized import quantize_rows, quantized_linear, quantized_norm
from kernels.residual import gated_residual
from kernels.roofline import CONVS, LATENTS, Cost, WanSize, block_costs, conv_cost, step_costs
from kernels.rope3d import qk_norm_rope
from kernels.stochastic import stochastic_step

_HEAD = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One call of an operator, what it must move and compute at least, and the 8-bit format it is in, if any."""

    operator: str
    shape: str
    cost: Cost
    form: Literal["int8", "fp8"] | None
    call: Callable[[], object]


def workloads(size: WanSize, device: torch.device) -> Iterator[Workload]:
    """A block's operators at `size` in bf16; several hold gigabytes, so that they are best taken one at a time."""
    costs = {cost.operator: cost for cost in block_costs(size)}
    yield from _norms(size, device, costs)
    yield from _attentions(size, device, costs["attention"])
    yield from _products(size, device, costs["product, feed-forward in"])


def conv_workloads(device: torch.device) -> Iterator[Workload]:
    """The convolutions of the VAE's decoder."""
    for size in CONVS:
        c = size.channels
        x = _draw(device, 1, c, size.frames, size.rows, size.columns)
        cache, weight = _draw(device, 1, c, 2, size.rows, size.columns), _draw(device, c, c, 3, 3, 3)
        x, cache, weight = (t.contiguous(memory_format=torch.channels_last_3d) for t in (x, cache, weight))
        yield Workload(
            operator="causal_conv3d",
            shape=f"{c} channels, {size.frames} x {size.rows} x {size.columns}",
            cost=conv_cost(size),
            form=None,
            call=lambda x=x, w=weight, cache=cache: causal_conv3d(x, w, cache=cache, padding=(1, 1)),
        )


def step_workloads(device: torch.device) -> Iterator[Workload]:
    """Guidance and a step of the latents of one film."""
    x, c, u, before, newest, older = (torch.randn(1, LATENTS, device=device) for _ in range(6))
    guidance = torch.full((1,), 5.0, device=device)
    history = {"before": before, "newest": newest, "older": older}
    corrects = (0.5, 0.9, 0.3, -0.1, 0.2, 0.8, 0.3, -0.1)
    calls: dict[str, Callable[[], object]] = {
        "euler_step": lambda: euler_step(x, c, u, guidance, change=-0.05),
        "unipc_step": lambda: unipc_step(x, c, u, guidance, **history, coefficients=corrects),
        "stochastic_step": lambda: stochastic_step(x, c, u, guidance, noise=before, keep=0.9, pull=-0.1, deviation=0.3),
    }
    for cost in step_costs():
        yield Workload(
            operator=cost.operator, shape=f"{LATENTS:,} values", cost=cost, form=None, call=calls[cost.operator]
        )


def _norms(size: WanSize, device: torch.device, costs: dict[str, Cost]) -> Iterator[Workload]:
    x, branch = (_draw(device, 1, size.tokens, size.width) for _ in range(2))
    gate, scale, shift = (_draw(device, 1, 1, size.width).float() for _ in range(3))
    weight = _draw(device, size.width)
    heads = size.width // _HEAD
    # As diffusers has them: each angle twice over, of which the operator reads every other.
    angles = torch.rand(size.tokens, _HEAD, device=device)
    cos, sin = angles.cos()[:, 0::2], angles.sin()[:, 1::2]
    calls: dict[str, tuple[str, Literal["int8"] | None, Callable[[], object]]] = {
        "modulated_norm": ("modulated_norm", None, lambda: modulated_norm(x, scale=scale, shift=shift)),
        "quantized_norm": ("modulated_norm", "int8", lambda: quantized_norm(x, scale=scale, shift=shift)),
        "gated_norm": ("gated_norm, modulated", None, lambda: gated_norm(x, branch, gate, scale=scale, shift=shift)),
        "gated_residual": ("gated_residual", None, lambda: gated_residual(x, branch, gate)),
        "qk_norm_rope": (
            "qk_norm_rope",
            None,
            lambda: qk_norm_rope(x, branch, weight, weight, heads=heads, cos=cos, sin=sin),
        ),
    }
    for operator, (row, form, call) in calls.items():
        yield Workload(operator=operator, shape=size.name, cost=costs[row], form=form, call=call)


def _attentions(size: WanSize, device: torch.device, cost: Cost) -> Iterator[Workload]:
    q, k, v = (_draw(device, 1, size.tokens, size.width // _HEAD, _HEAD) for _ in range(3))
    of_int8 = replace(cost, int8_share=0.5)
    for operator, own, call in (("attention", cost, attention), ("int8_attention", of_int8, int8_attention)):
        yield Workload(operator=operator, shape=size.name, cost=own, form=None, call=lambda c=call: c(q, k, v))


def _products(size: WanSize, device: torch.device, cost: Cost) -> Iterator[Workload]:
    x, weight = _draw(device, 1, size.tokens, size.width), _draw(device, size.inner, size.width)
    forms: dict[Literal["int8", "fp8"], torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
    for form, dtype in forms.items():
        if dtype != torch.int8 and target_of(device) in NO_FP8:
            continue
        rounded = quantize_rows(x, dtype), quantize_rows(weight, dtype)
        yield Workload(
            operator="quantized_linear",
            shape=f"{size.name}, {form}",
            cost=cost,
            form=form,
            call=lambda r=rounded: quantized_linear(*r, dtype=torch.bfloat16, gelu=True),
        )


def _draw(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.bfloat16)
