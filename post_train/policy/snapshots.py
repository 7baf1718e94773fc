"""Copies of trained weights that a method looks back to: a reference, a moving anchor, the policy that makes films."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from post_train.distributed import placed

Weights = dict[str, Tensor]


def copied(module: nn.Module) -> Weights:
    """The trained weights as they are now, cut among ranks as they are."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@torch.no_grad()
def put(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Writes weights into the module in place."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])


def placed_like(module: nn.Module, weights: Mapping[str, Tensor]) -> Weights:
    """Whole tensors as this rank's parts of the module's weights."""
    parameters = dict(module.named_parameters())
    return {name: placed(value, parameters[name]).clone() for name, value in weights.items()}


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other weights for a while, then with its own again."""
    own = copied(module)
    put(module, weights)
    try:
        yield
    finally:
        put(module, own)
