"""Which Gaussian each stochastic sampler of the literature steps by: (keep, pull, deviation) from two noise levels.

With sigma the noise level (1 is pure noise), v ~ noise - clean, and dt = sigma' - sigma < 0, an SDE of the flow's own
marginals with diffusion std steps by

    keep = 1 + std^2 dt / (2 sigma)    pull = (1 + std^2 (1 - sigma) / (2 sigma)) dt    deviation = std sqrt(-dt)

and the methods differ in std. Two are no such discretisation: CPS and SAGE. The gradient of a draw's log-probability by
the velocity is (pull / deviation) e, so |pull| / deviation is what a method's rectification divides by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.samplers.stochastic import GaussianStep

_CLEAN = 1e-4
_NOISIEST = 2.0
"""The rules known here leave up to 1.7 in four steps or more; Flow-SDE without a bound at 0.9997 leaves 14."""


class StepRule(Protocol):
    """A method's Gaussian for each step of a schedule of noise levels, falling to 0."""

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        """The step from sigmas[index] to sigmas[index + 1]. ValueError where the rule draws nothing there."""
        ...


class ConventionError(ValueError):
    """Noise levels or a rule speak of another flow than x = (1 - sigma) clean + sigma noise, v = noise - clean."""


def drawing_steps(rule: StepRule, sigmas: Sequence[float]) -> tuple[int, ...]:
    """The steps at which the rule draws; of CPS all but the last, which ends without noise.

    ConventionError for levels that do not fall from at most 1 to 0, and for a rule that does not step from the one to
    the next: films would be made all the same, and a policy learn from noise.
    """
    check_levels(sigmas)
    found = []
    for index in range(len(sigmas) - 1):
        try:
            step = rule.gaussian(sigmas, index)
        except ValueError:
            continue
        check_step(rule, step, sigmas[index], sigmas[index + 1])
        found.append(index)
    return tuple(found)


def check_levels(sigmas: Sequence[float]) -> None:
    """ConventionError unless they fall, from at most 1 (pure noise) to no less than 0 (clean)."""
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if len(sigmas) < 2 or not falling or sigmas[0] > 1 or sigmas[-1] < 0:
        raise ConventionError(
            f"noise levels must fall from at most 1 (pure noise) to 0 (clean), got {_shortened(sigmas)}; "
            "timesteps of a thousand and levels at which 1 is clean are other conventions"
        )


def check_step(rule: StepRule, step: GaussianStep, sigma: float, following: float) -> None:
    """ConventionError unless the step leads from sigma to sigma'.

    Of x = (1 - sigma) clean + sigma noise it makes keep (1 - sigma) - pull of the clean part, which every rule of the
    literature has at exactly 1 - sigma', and noise of deviation sqrt((keep sigma + pull)^2 + deviation^2), which they
    have near sigma'.
    """
    clean = step.keep * (1 - sigma) - step.pull
    if abs(clean - (1 - following)) > _CLEAN:
        raise ConventionError(
            f"{rule} leaves {clean:.4g} of the clean film where noise level {following:.4g} has {1 - following:.4g}; "
            "it must step by v = noise - clean, with level 1 as pure noise"
        )
    noise = math.hypot(step.keep * sigma + step.pull, step.deviation)
    if noise > _NOISIEST:
        raise ConventionError(
            f"{rule} leaves noise of deviation {noise:.3g} where the level is {following:.4g}; bound its deviation "
            f"({step.deviation:.3g}) near pure noise"
        )


def _shortened(sigmas: Sequence[float]) -> str:
    shown = [f"{s:.4g}" for s in sigmas]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])


@dataclass(frozen=True, slots=True)
class LinearStd:
    """std = sigmas[1] * sigma: Flash-GRPO (arXiv 2605.15980) and flow_grpo's file for Wan."""

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        return _of_sde(sigmas, index, sigmas[1] * sigmas[index])


@dataclass(frozen=True, slots=True)
class ConstantStd:
    """std = eta: DanceGRPO (arXiv 2505.07818)."""

    eta: float = 0.3

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        return _of_sde(sigmas, index, self.eta)


@dataclass(frozen=True, slots=True)
class FlowStd:
    """std = eta sqrt(sigma / (1 - sigma)): Flow-GRPO (arXiv 2505.05470).

    It has no bound at pure noise, so below the root 1 - sigma counts as at least 1 - sigmas[1]. Public code sees to
    that only where sigma is exactly 1, and a schedule that begins at 0.9997 then draws with a deviation of 38.
    """

    eta: float = 0.7

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        sigma = sigmas[index]
        return _of_sde(sigmas, index, self.eta * math.sqrt(sigma / (1 - min(sigma, sigmas[1]))))


@dataclass(frozen=True, slots=True)
class CoefficientsPreserving:
    """CPS: the clean and noisy parts keep the coefficients of sigma', of whose noise the share sin(eta pi / 2) is new.

    keep = (1 - sigma') + r, pull = r (1 - sigma) - (1 - sigma') sigma, r = sqrt(sigma'^2 - deviation^2).
    """

    eta: float = 0.8

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        sigma, following = sigmas[index], sigmas[index + 1]
        new = following * math.sin(self.eta * math.pi / 2)
        old = math.sqrt(following**2 - new**2)
        return GaussianStep(keep=(1 - following) + old, pull=old * (1 - sigma) - (1 - following) * sigma, deviation=new)


@dataclass(frozen=True, slots=True)
class IntegratedFlow:
    """SAGE-GRPO (arXiv 2603.21872): Flow-GRPO's variance integrated over the step instead of taken at its left end.

    V = eta^2 (ln((1 - sigma') / (1 - sigma)) - (sigma - sigma')), the logarithm's levels at most 0.997.
    """

    eta: float = 0.7
    highest: float = 0.997

    def gaussian(self, sigmas: Sequence[float], index: int) -> GaussianStep:
        sigma, following = sigmas[index], sigmas[index + 1]
        top, bottom = min(sigma, self.highest), min(following, self.highest)
        dt = following - sigma
        variance = self.eta**2 * (math.log((1 - bottom) / (1 - top)) + dt)
        return GaussianStep(
            keep=1 - variance / (2 * sigma),
            pull=dt - variance * (1 - sigma) / (2 * sigma),
            deviation=math.sqrt(max(variance, 0.0)),
        )


def _of_sde(sigmas: Sequence[float], index: int, std: float) -> GaussianStep:
    sigma, dt = sigmas[index], sigmas[index + 1] - sigmas[index]
    return GaussianStep(
        keep=1 + std**2 * dt / (2 * sigma),
        pull=(1 + std**2 * (1 - sigma) / (2 * sigma)) * dt,
        deviation=std * math.sqrt(-dt),
    )
