"""The ranking loss is the expectation it says, to stated accuracy, with gradients that are its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from post_train.ranking_loss import expected_softplus, ranking_losses


def _integrated(mean: float, deviation: float) -> float:
    """The expectation by fine integration over twelve deviations to either side."""
    x = np.linspace(-12, 12, 200_001)
    values = np.logaddexp(0, -(mean + deviation * x)) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(values, x))


def _pairs(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("deviation", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize("mean", [-12.0, -3.0, -0.5, 0.0, 0.5, 3.0, 12.0])
def test_quadrature_is_exact_where_deviations_are_small(mean: float, deviation: float) -> None:
    """Up to a deviation of 1 the error is below 1e-6."""
    assert float(expected_softplus(_pairs(mean), _pairs(deviation))) == pytest.approx(
        _integrated(mean, deviation), abs=1e-6
    )


@pytest.mark.parametrize("mean", [-12.0, -3.0, 0.0, 3.0, 12.0])
def test_quadrature_holds_where_deviations_are_large(mean: float) -> None:
    """Below 2e-3 up to 4, and within 4 % up to 12, as its docstring says."""
    for deviation, within in ((2.0, 1e-5), (4.0, 2e-3)):
        found = float(expected_softplus(_pairs(mean), _pairs(deviation)))
        assert found == pytest.approx(_integrated(mean, deviation), abs=within)
    assert float(expected_softplus(_pairs(mean), _pairs(12.0))) == pytest.approx(_integrated(mean, 12.0), rel=0.04)


def test_it_is_what_sampling_estimates() -> None:
    """A million draws, as HPSv3 takes a thousand, agree within five of their standard errors."""
    generator = torch.Generator().manual_seed(5)
    for mean, deviation in ((1.0, 0.5), (-0.7, 1.5), (0.0, 3.0)):
        z = mean + deviation * torch.randn(1_000_000, generator=generator, dtype=torch.float64)
        draws = torch.nn.functional.softplus(-z)
        error = float(draws.std()) / 1000
        assert abs(float(expected_softplus(_pairs(mean), _pairs(deviation))) - float(draws.mean())) < 5 * error


def test_closed_forms() -> None:
    """Without doubt it is log(1 + exp(-m)); a pair and its mirror differ by the mean, whatever the deviation."""
    means = _pairs(-5.0, -1.0, 0.0, 2.0, 7.0)
    sure = expected_softplus(means, torch.zeros_like(means))
    assert torch.allclose(sure, torch.log1p(torch.exp(-means)), atol=1e-12)
    for deviation in (0.1, 1.0, 5.0):
        spread = torch.full_like(means, deviation)
        # softplus(-z) - softplus(z) = -z, whose expectation is -m exactly.
        difference = expected_softplus(means, spread) - expected_softplus(-means, spread)
        assert torch.allclose(difference, -means, atol=1e-10)


def test_deviations_of_a_pair_add_as_independent_errors_do() -> None:
    """The deviation of the difference is the root of the sum of squares."""
    found = ranking_losses(_pairs(1.0), _pairs(math.log(0.3)), _pairs(0.2), _pairs(math.log(0.4)))
    assert float(found) == pytest.approx(_integrated(0.8, 0.5), abs=1e-7)


def test_doubt_costs_the_sure_and_spares_the_wrong() -> None:
    """A right order costs more in doubt than in certainty; a wrong one, the other way about, costs nearly the same."""
    right, wrong = _pairs(3.0), _pairs(-3.0)
    zero, low, high = _pairs(0.0), _pairs(-4.0), _pairs(1.0)
    assert ranking_losses(right, high, zero, high) > ranking_losses(right, low, zero, low)
    sure, doubtful = (float(ranking_losses(wrong, s, zero, s)) for s in (low, high))
    assert (doubtful - sure) / sure < 0.2


def test_gradients_are_right() -> None:
    """Analytic and numeric derivatives agree in all four arguments."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(ranking_losses, inputs)


def test_half_precision_is_computed_in_full() -> None:
    """Inputs in bf16 give what the same numbers give in fp32."""
    generator = torch.Generator().manual_seed(3)
    half = [torch.randn(8, generator=generator).bfloat16() for _ in range(4)]
    found = ranking_losses(*half)
    assert found.dtype is torch.float32
    assert torch.equal(found, ranking_losses(*(h.float() for h in half)))


def test_it_is_finite_at_the_extremes() -> None:
    """Means a thousand apart and vanishing deviations: no overflow, and a gradient."""
    better = torch.tensor([1000.0, -1000.0, 0.0], requires_grad=True)
    log_sigma = torch.tensor([-30.0, -30.0, 2.0])
    losses = ranking_losses(better, log_sigma, torch.zeros(3), log_sigma)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert better.grad is not None
    assert torch.isfinite(better.grad).all()
    assert float(losses[1].detach()) == pytest.approx(1000.0, rel=1e-5)
