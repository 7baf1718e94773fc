"""Which layers bear 8 bits: the error of the whole step when one alone is rounded, and which are left as they are.

Errors of different layers hardly depend on one another, so the squares of their relative errors are added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engines.quantization.calibration import Seen
from engines.quantization.smoothing import SmoothedLinear, smoothing_scale


def smooth(module: nn.Module, seen: Seen, layers: Sequence[str], power: float) -> None:
    """Puts smoothed layers in the place of `layers` of `module`."""
    for name in layers:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        scale = smoothing_scale(seen.largest[name], linear.weight.detach(), power)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, SmoothedLinear(linear, scale))


@torch.no_grad()
def layer_errors(module: nn.Module, inputs: Sequence[tuple[Tensor, ...]], layers: Sequence[str]) -> dict[str, float]:
    """The relative error of the output, over all `inputs`, when one of `layers` alone computes in int8."""
    exact = [module(*x) for x in inputs]
    norm = math.sqrt(sum(float(y.square().sum()) for y in exact))
    errors = {}
    for name in layers:
        with _rounded(module.get_submodule(name)):
            total = sum(float((module(*x) - y).square().sum()) for x, y in zip(inputs, exact, strict=True))
        errors[name] = math.sqrt(total) / norm
    return errors


def bearable(errors: Mapping[str, float], step_error: float) -> frozenset[str]:
    """The layers that are rounded: all but the most sensitive, so that the errors of the others stay within bounds."""
    chosen, total = set(), 0.0
    for name, error in sorted(errors.items(), key=lambda item: item[1]):
        total += error**2
        if not total <= step_error**2:
            break
        chosen.add(name)
    return frozenset(chosen)


@contextmanager
def _rounded(layer: nn.Module) -> Iterator[None]:
    """While this is open, a layer computes with weights and inputs that int8 has."""
    assert isinstance(layer, nn.Linear | SmoothedLinear)
    weight = layer.weight.data
    layer.weight.data = _rounded_by(weight, weight.abs().amax(1, keepdim=True))
    hook = layer.register_forward_pre_hook(lambda _, inputs: _input(layer, inputs[0]))
    try:
        yield
    finally:
        hook.remove()
        layer.weight.data = weight


def _input(layer: nn.Module, x: Tensor) -> tuple[Tensor]:
    """What is rounded of a smoothed layer is its input after smoothing."""
    scale = layer.inverse if isinstance(layer, SmoothedLinear) else torch.ones((), device=x.device)
    scaled = x * scale
    # Between the least and the largest value, zero included, in 255 steps: as ONNX's DynamicQuantizeLinear has it.
    low, high = scaled.amin().clamp(max=0), scaled.amax().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30)
    zero = (-low / step).round()
    rounded = ((scaled / step).round() + zero).clamp(0, 255) - zero
    return (rounded * step / scale,)


def _rounded_by(x: Tensor, largest: Tensor) -> Tensor:
    step = largest.clamp(min=1e-30) / 127
    return (x / step).round().clamp(-127, 127) * step
