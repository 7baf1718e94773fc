"""The ranking loss is the expectation it says, to stated accuracy, with gradients that are its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from post_train.ranking_loss import expected_softplus, likelihood_losses, ranking_losses


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


@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_no_deviation_ever_pays_in_the_ranking_loss(mean: float) -> None:
    """-log sigmoid is convex: whatever the order, more deviation costs more, which is why another loss fits them."""
    losses = [float(ranking_losses(_pairs(mean), _pairs(s), _pairs(0.0), _pairs(s))) for s in (-4.0, -1.0, 0.0, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


def test_the_likelihood_is_what_it_says() -> None:
    """-log E[sigmoid(z)] against fine integration, and log(1 + exp(-m)) without doubt."""
    for mean, deviation in ((1.0, 0.5), (-2.0, 1.4), (3.0, 2.8)):
        log = _pairs(math.log(deviation / math.sqrt(2)))
        x = np.linspace(-12, 12, 200_001)
        values = 1 / (1 + np.exp(-(mean + deviation * x))) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        found = float(likelihood_losses(_pairs(mean), log, _pairs(0.0), log))
        assert found == pytest.approx(-math.log(float(np.trapezoid(values, x))), abs=1e-3)
    sure = likelihood_losses(_pairs(2.0), _pairs(-30.0), _pairs(0.5), _pairs(-30.0))
    assert float(sure) == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-9)


def test_the_likelihood_finds_the_deviation_that_is_true() -> None:
    """Where pairs that are 3 apart come in that order nine times of ten, the best deviation makes 0.9 of them."""
    log_sigma = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_sigma], max_iter=50, line_search_fn="strong_wolfe")

    def both(*, right: bool) -> Tensor:
        mean = _pairs(3.0 if right else -3.0)
        return likelihood_losses(mean, log_sigma, _pairs(0.0), log_sigma)[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.9 * both(right=True) + 0.1 * both(right=False)
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    assert math.exp(-float(both(right=True).detach())) == pytest.approx(0.9, abs=1e-4)
    assert float(log_sigma.detach()) > 0


def test_gradients_are_right() -> None:
    """Analytic and numeric derivatives agree in all four arguments."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(ranking_losses, inputs)
    assert torch.autograd.gradcheck(likelihood_losses, inputs)


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
