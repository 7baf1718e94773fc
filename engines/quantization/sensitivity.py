"""Which layers bear fewer bits: the error of the whole step when one alone is rounded, and which are left as they are.

Errors of different layers hardly depend on one another, so the squares of their relative errors are added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engines.quantization.calibration import Seen
from engines.quantization.forms import Form, rounded_input, rounded_weight
from engines.quantization.smoothing import SmoothedLinear, smoothing_scale


def smooth(module: nn.Module, seen: Seen, layers: Sequence[str], power: float) -> None:
    """Puts smoothed layers in the place of `layers` of `module`."""
    for name in layers:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        scale = smoothing_scale(seen.largest[name], linear.weight.detach(), power)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, SmoothedLinear(linear, scale))


def largest_inputs(module: nn.Module, seen: Seen, layers: Sequence[str]) -> dict[str, float]:
    """The largest |x| that each layer is fed with, after smoothing where it is smoothed."""
    found = {}
    for name in layers:
        layer, largest = module.get_submodule(name), seen.largest[name]
        found[name] = float((largest * layer.inverse if isinstance(layer, SmoothedLinear) else largest).max())
    return found


@torch.no_grad()
def layer_errors(
    module: nn.Module, inputs: Sequence[tuple[Tensor, ...]], largest: Mapping[str, float], form: Form
) -> dict[str, float]:
    """The relative error of the output, over all `inputs`, when one layer of `largest` alone is in `form`."""
    exact = [module(*x) for x in inputs]
    norm = math.sqrt(sum(float(y.square().sum()) for y in exact))
    errors = {}
    for name, most in largest.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear | SmoothedLinear)
        with _rounded(layer, form, most):
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
def _rounded(layer: nn.Linear | SmoothedLinear, form: Form, largest: float) -> Iterator[None]:
    """While this is open, a layer computes with weights and inputs that the form has."""
    weight = layer.weight.data
    layer.weight.data = rounded_weight(weight, form).value.to(weight.dtype)
    hook = layer.register_forward_pre_hook(lambda _, inputs: _input(layer, inputs[0], form, largest))
    try:
        yield
    finally:
        hook.remove()
        layer.weight.data = weight


def _input(layer: nn.Module, x: Tensor, form: Form, largest: float) -> tuple[Tensor]:
    """What is rounded of a smoothed layer is its input after smoothing."""
    scale = layer.inverse if isinstance(layer, SmoothedLinear) else torch.ones((), device=x.device, dtype=x.dtype)
    return (rounded_input(x * scale, form, largest) / scale,)
