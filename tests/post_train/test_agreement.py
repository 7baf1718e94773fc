"""How far two updates' gradients agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from post_train.agreement import GradientAgreement
from post_train.distributed import ALONE


def _with_gradient(module: nn.Linear, weight: list[float], bias: list[float] | None) -> nn.Linear:
    module.weight.grad = torch.tensor([weight])
    assert module.bias is not None
    module.bias.grad = None if bias is None else torch.tensor(bias)
    return module


def test_it_is_the_cosine_over_all_weights_whatever_their_scale() -> None:
    """By hand: 20 / (5 * 13) over three weights; twice as long is the same; turned round is its negative."""
    module, agreement = nn.Linear(2, 1), GradientAgreement(ALONE)
    assert agreement.take(_with_gradient(module, [3.0, 0.0], [4.0])) == 0.0
    assert agreement.take(_with_gradient(module, [0.0, 12.0], [5.0])) == pytest.approx(20 / (5 * 13))
    assert agreement.take(_with_gradient(module, [0.0, 24.0], [10.0])) == pytest.approx(1.0)
    assert agreement.take(_with_gradient(module, [0.0, -12.0], [-5.0])) == pytest.approx(-1.0)


def test_a_missing_or_zero_gradient_agrees_with_nothing() -> None:
    """A weight without a gradient counts as zero, and zero as no direction; neither is an error."""
    module, agreement = nn.Linear(2, 1), GradientAgreement(ALONE)
    agreement.take(_with_gradient(module, [1.0, 0.0], None))
    assert agreement.take(_with_gradient(module, [1.0, 0.0], [1.0])) == pytest.approx(0.5**0.5)
    assert agreement.take(_with_gradient(module, [0.0, 0.0], [0.0])) == 0.0
    assert agreement.take(_with_gradient(module, [1.0, 0.0], [0.0])) == 0.0


def test_it_tells_the_share_of_signal() -> None:
    """Gradients of one direction with noise of three times its square agree by a quarter, on the mean."""
    torch.manual_seed(5)
    module, agreement = nn.Linear(4000, 1, bias=False), GradientAgreement(ALONE)
    signal, seen = torch.randn(1, 4000), []
    for _ in range(200):
        module.weight.grad = signal + 3**0.5 * torch.randn(1, 4000)
        seen.append(agreement.take(module))
    assert sum(seen[1:]) / len(seen[1:]) == pytest.approx(0.25, abs=0.01)
