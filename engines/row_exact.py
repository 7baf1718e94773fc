"""Activations computed row by row on a CPU, so that no film's bits depend on its place in the batch.

B batch, L tokens, D width.

A CPU computes tanh and exp many numbers at a time, and what is left over at the end of a tensor one by one with another
routine that may differ in the last bit. Over a whole batch the left-over falls into the last row alone; over a row it
falls at the same place in every row. Everything else in the transformer (products, norms, attention, sums) was found to
give a row the same bits at every place in batches of equal size; tests/engines/test_batching.py holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.activations import GELU
from torch import nn

Activation = Callable[[torch.Tensor], torch.Tensor]


class RowExact(nn.Module):
    """An elementwise function of [B, ...], applied to one row at a time; on other devices applied as it is."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or len(x) == 1:
            return self._function(x)
        out = torch.empty_like(x)
        for source, target in zip(x, out, strict=True):
            target.copy_(self._function(source))
        return out


def make_row_exact(model: nn.Module) -> None:
    """Wrap every activation in `model`, in place; names and shapes of its weights stay as they are."""
    for module in list(model.modules()):
        if isinstance(module, GELU):
            # Into the instance, before the class's method of that name; its projection stays one product for the batch.
            vars(module)["gelu"] = RowExact(module.gelu).train(module.training)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GELU | nn.SiLU):
                setattr(module, name, RowExact(child).train(child.training))
