"""An exponential moving average of a module's weights, kept in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows `module`'s parameters: average = decay * average + (1 - decay) * weights after each step.

    The decay warms up as (1 + step) / (10 + step), so that the random start is forgotten at once.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Takes in the weights after training step `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(module.named_parameters())
        current = [parameters[name].detach().float() for name in self.weights]
        # One call for all tensors, as torch.optim.swa_utils makes it.
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrites `module`'s weights by the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])
