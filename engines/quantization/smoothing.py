"""Smoothing: outlying channels of a layer's input are divided by a scale that its weights are multiplied by.

D input channels, N output channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST = 1e-5


class SmoothedLinear(nn.Module):
    """The same function as the linear layer that it is made of, with an input that is rounded at less loss."""

    def __init__(self, linear: nn.Linear, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach() * scale, requires_grad=False)
        self.bias = linear.bias
        self.register_buffer("inverse", 1.0 / scale)
        self.inverse: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * self.inverse, self.weight, self.bias)


def smoothing_scale(largest: Tensor, weight: Tensor, power: float) -> Tensor:
    """s = max |x|^a / max |w|^(1 - a) of each input channel [D], of what was seen of it and of weights [N, D].

    SmoothQuant's equation 4 (Xiao et al., arXiv 2211.10438). A channel that was never seen keeps its scale.
    """
    of_weight = weight.abs().amax(0)
    scale = largest.clamp(min=_LEAST) ** power / of_weight.clamp(min=_LEAST) ** (1 - power)
    return torch.where((largest > 0) & (of_weight > 0), scale, torch.ones_like(scale)).clamp(_LEAST, 1 / _LEAST)
