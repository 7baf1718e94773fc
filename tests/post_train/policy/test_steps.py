"""Step rules: their published coefficients, and that their films have the flow's own distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from engines.samplers.guidance import Velocity
from engines.samplers.stochastic import GaussianStep
from post_train.policy.steps import (
    CoefficientsPreserving,
    ConstantStd,
    ConventionError,
    FlowStd,
    IntegratedFlow,
    LinearStd,
    StepRule,
    drawing_steps,
)


def _shifted(count: int) -> list[float]:
    levels = [0.999 * i / count for i in range(count, 0, -1)]
    return [3 * u / (1 + 2 * u) for u in levels] + [0.0]


# deviation / |pull| at the first ten of twenty steps with shift 3, by an independent computation.
_VECTORS: list[tuple[StepRule, str]] = [
    (LinearStd(), "7.4770 7.0414 6.6112 6.1867 5.7682 5.3559 4.9502 4.5513 4.1596 3.7754"),
    (FlowStd(), "40.0074 30.9193 20.6350 15.8044 12.7879 10.6457 9.0084 7.6966 6.6108 5.6906"),
    (ConstantStd(), "2.2843 2.2052 2.1259 2.0466 1.9672 1.8877 1.8081 1.7283 1.6484 1.5681"),
    (CoefficientsPreserving(), "53.4721 30.3682 20.7030 15.3911 12.0303 9.7110 8.0126 6.7138 5.6869 4.8531"),
    (IntegratedFlow(), "53.2637 27.1786 19.1241 14.9428 12.2159 10.2316 8.6912 7.4437 6.4030 5.5157"),
]


@pytest.mark.parametrize(("rule", "wanted"), _VECTORS)
def test_the_coefficients_are_those_of_the_literature(rule: StepRule, wanted: str) -> None:
    """deviation / |pull|, which rectification multiplies by, to four decimals."""
    sigmas = _shifted(20)
    found = [1 / rule.gaussian(sigmas, index).pull_to_noise for index in range(10)]
    assert found == pytest.approx([float(w) for w in wanted.split()], abs=6e-5)


@dataclass(frozen=True)
class _Uncapped:
    """Flow-GRPO's rule as public code has it where a schedule begins just below 1."""

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        sigma, dt = sigmas[index], sigmas[index + 1] - sigmas[index]
        std = 0.7 * math.sqrt(sigma / (1 - sigma))
        return GaussianStep(
            keep=1 + std**2 * dt / (2 * sigma),
            pull=(1 + std**2 * (1 - sigma) / (2 * sigma)) * dt,
            deviation=std * math.sqrt(-dt),
        )


def _velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact flow of data N(2, 0.5^2)."""
    away = x - 2 * (1 - sigma)
    variance = 0.25 * (1 - sigma) ** 2 + sigma**2
    return sigma / variance * away - (2 + 0.25 * (1 - sigma) / variance * away)


def _ended(rule: StepRule, count: int, drawn: Sequence[int] | None = None) -> torch.Tensor:
    """200,000 values at the end of `count` steps, of which `drawn` draw, or all that can."""
    generator = torch.Generator().manual_seed(3)
    sigmas = _shifted(count)
    x = torch.randn(200_000, generator=generator, dtype=torch.float64)
    draws = set(drawing_steps(rule, sigmas) if drawn is None else drawn)
    for index in range(count):
        v = _velocity(x, sigmas[index])
        if index in draws:
            g = rule.gaussian(sigmas, index)
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            x = g.keep * x + g.pull * v + g.deviation * noise
        else:
            x = x + (sigmas[index + 1] - sigmas[index]) * v
    return x


_DEVIATIONS: list[tuple[StepRule, tuple[float, float, float]]] = [
    (LinearStd(), (0.390, 0.442, 0.475)),
    (FlowStd(), (0.419, 0.458, 0.483)),
    (ConstantStd(), (0.385, 0.440, 0.475)),
    (CoefficientsPreserving(), (0.315, 0.349, 0.376)),
    (IntegratedFlow(), (0.416, 0.458, 0.482)),
]


@pytest.mark.parametrize(("rule", "wanted"), _DEVIATIONS)
def test_drawn_films_have_the_marginals_of_the_flow(rule: StepRule, wanted: tuple[float, ...]) -> None:
    """Data N(2, 0.5^2), every step drawn: the mean stays 2, the deviation is what each method's theory has."""
    for count, deviation in zip((10, 20, 50), wanted, strict=True):
        x = _ended(rule, count)
        assert float(x.mean()) == pytest.approx(2, abs=0.01)
        assert float(x.std()) == pytest.approx(deviation, abs=0.006)


def test_without_its_cap_flow_grpo_draws_noise() -> None:
    """The trap that public code fell into: deviations above 2, of 1.3 and of 0.7 instead of below a half."""
    found = [float(_ended(_Uncapped(), count, drawn=tuple(range(count))).std()) for count in (10, 20, 50)]
    assert found[0] > 2
    assert found[1:] == pytest.approx([1.34, 0.67], rel=0.03)
    assert all(one > 1.3 * float(_ended(FlowStd(), n).std()) for one, n in zip(found, (10, 20, 50), strict=True))


@pytest.mark.parametrize("rule", [rule for rule, _ in _VECTORS])
def test_one_drawn_step_leaves_films_as_good_as_none(rule: StepRule) -> None:
    """A draw a quarter of the way changes the deviation at the end by less than a hundredth."""
    without = float(_ended(rule, 20, drawn=()).std())
    assert float(_ended(rule, 20, drawn=(5,)).std()) == pytest.approx(without, abs=0.01)


def test_a_step_without_noise_draws_nothing() -> None:
    """CPS ends without noise: there is no density there, and the rule says so."""
    sigmas = _shifted(8)
    with pytest.raises(ValueError, match="a deviation above 0"):
        CoefficientsPreserving().gaussian(sigmas, 7)
    assert drawing_steps(CoefficientsPreserving(), sigmas) == tuple(range(7))
    assert drawing_steps(LinearStd(), sigmas) == tuple(range(8))


@dataclass(frozen=True)
class _Flipped:
    """A rule for v = clean - noise."""

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        step = LinearStd().gaussian(sigmas, index)
        return replace(step, pull=-step.pull)


@dataclass(frozen=True)
class _CleanAtOne:
    """A rule that takes level 1 for clean."""

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        turned = [1 - s for s in reversed(sigmas)]
        return LinearStd().gaussian(turned, len(turned) - 2 - index)


@pytest.mark.parametrize(
    ("rule", "sigmas", "sentence"),
    [
        (LinearStd(), [999.0, 900.0, 500.0, 0.0], "must fall from at most 1 .* got 999, 900, 500, 0; timesteps"),
        (LinearStd(), [0.0, 0.3, 0.7, 1.0], "must fall from at most 1"),
        (FlowStd(), [0.9, 0.9, 0.5, 0.0], "must fall from at most 1"),
        (FlowStd(), [0.9, 0.5, -0.1], "must fall from at most 1"),
        (LinearStd(), [0.9], "must fall from at most 1"),
        (_Flipped(), _shifted(20), "leaves .* of the clean film where noise level"),
        (_CleanAtOne(), _shifted(20), "leaves .* of the clean film where noise level"),
        (_Uncapped(), [0.9997, *_shifted(20)[1:]], "leaves noise of deviation .* near pure noise"),
    ],
)
def test_another_convention_is_refused(rule: StepRule, sigmas: list[float], sentence: str) -> None:
    """Levels of a thousand or the wrong way round; rules by another sign or end; noise without bound."""
    with pytest.raises(ConventionError, match=sentence):
        drawing_steps(rule, sigmas)


@pytest.mark.parametrize("rule", [rule for rule, _ in _DEVIATIONS])
@pytest.mark.parametrize("count", [4, 8, 20, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
def test_rules_of_the_literature_keep_the_convention(rule: StepRule, count: int, shift: float) -> None:
    """On coarse and fine schedules, of every shift that is served."""
    levels = [0.9999 * (1 - i / count) for i in range(count)]
    sigmas = [shift * s / (1 + (shift - 1) * s) for s in levels] + [0.0]
    assert len(drawing_steps(rule, sigmas)) >= count - 1


def test_a_draw_has_the_density_of_its_gaussian() -> None:
    """Its log-probability and divergence are those of torch's own normal distribution, as means over a row."""
    torch.manual_seed(0)
    x, v, w, noise = torch.randn(4, 3, 2, 2, 4, 4).unbind(0)
    x, v, w, noise = (t[:, None].expand(3, 2, 2, 4, 4).contiguous() for t in (x[:, 0], v[:, 0], w[:, 0], noise[:, 0]))
    step = GaussianStep(keep=0.9, pull=-0.2, deviation=0.3)
    drawn, logs = step.draw(x, Velocity(conditional=v), noise)
    normal = torch.distributions.Normal(0.9 * x - 0.2 * v, 0.3)
    assert torch.allclose(drawn, 0.9 * x - 0.2 * v + 0.3 * noise)
    assert torch.allclose(logs, normal.log_prob(drawn).mean((1, 2, 3, 4)), atol=1e-6)
    other = torch.distributions.Normal(0.9 * x - 0.2 * w, 0.3)
    kl = torch.distributions.kl_divergence(normal, other).mean((1, 2, 3, 4))
    assert torch.allclose(step.divergence(v, w), kl, rtol=1e-5)
    v.requires_grad_()
    step.log_probability(x, Velocity(conditional=v), drawn).sum().backward()
    assert v.grad is not None
    assert torch.allclose(v.grad, -0.2 / 0.3 * noise / noise[0].numel(), atol=1e-5)
