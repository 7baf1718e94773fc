"""The uncertainty-aware ranking loss of HPSv3 by quadrature instead of sampling, and what makes its deviations honest.

Legend: P pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor
from torch.nn import functional as F

_POINTS = 16
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.hermite.hermgauss(_POINTS))


@jaxtyped(typechecker=beartype)
def expected_softplus(mean: Float[Tensor, " P"], deviation: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """E[log(1 + exp(-z))] for z ~ N(mean, deviation^2), by 16-point Gauss-Hermite quadrature in at least fp32.

    Against fine integration the error is below 1e-6 for a deviation up to 1, 2e-3 up to 4, and 4 % of the value up to
    12, for means within 12.
    """
    nodes, weights = _NODES.to(mean), _WEIGHTS.to(mean)
    z = mean[:, None] + math.sqrt(2) * deviation[:, None] * nodes
    return (F.softplus(-z) * weights).sum(1) / math.sqrt(math.pi)


@jaxtyped(typechecker=beartype)
def ranking_losses(
    better_mean: Float[Tensor, " P"],
    better_log_sigma: Float[Tensor, " P"],
    worse_mean: Float[Tensor, " P"],
    worse_log_sigma: Float[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Each pair's -E[log sigmoid(z)], z ~ N(better - worse, sigma_better^2 + sigma_worse^2) (arXiv 2508.03789).

    HPSv3 averages 1,000 draws in fp16; this is the same quantity without their noise.

    -log sigmoid is convex, so that by Jensen's inequality no pair ever gains by a deviation: alone, this loss drives
    them all to 0. `likelihood_losses` is what they are to be learnt by.
    """
    return expected_softplus(*_difference(better_mean, better_log_sigma, worse_mean, worse_log_sigma))


@jaxtyped(typechecker=beartype)
def likelihood_losses(
    better_mean: Float[Tensor, " P"],
    better_log_sigma: Float[Tensor, " P"],
    worse_mean: Float[Tensor, " P"],
    worse_log_sigma: Float[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Each pair's -log E[sigmoid(z)] with the same z: the surprise at the order, were the scores that uncertain.

    Here the logarithm stands outside, so that a deviation costs what is right and spares what is wrong; least where the
    probability E[sigmoid(z)] is how often such pairs are in that order.
    """
    mean, deviation = _difference(better_mean, better_log_sigma, worse_mean, worse_log_sigma)
    z = mean[:, None] + math.sqrt(2) * deviation[:, None] * _NODES.to(mean)
    weights = torch.log(_WEIGHTS / math.sqrt(math.pi)).to(mean)
    return -torch.logsumexp(F.logsigmoid(z) + weights, 1)


def _difference(better: Tensor, better_log: Tensor, worse: Tensor, worse_log: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the difference of two independent scores, in at least fp32."""
    dtype = torch.promote_types(better.dtype, torch.float32)
    better, worse, better_log, worse_log = (v.to(dtype) for v in (better, worse, better_log, worse_log))
    return better - worse, torch.sqrt(torch.exp(2 * better_log) + torch.exp(2 * worse_log))
