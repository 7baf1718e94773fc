"""The uncertainty-aware ranking loss of HPSv3, its expectation taken by quadrature instead of by sampling.

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
    """
    dtype = torch.promote_types(better_mean.dtype, torch.float32)
    better, worse, better_log, worse_log = (
        v.to(dtype) for v in (better_mean, worse_mean, better_log_sigma, worse_log_sigma)
    )
    return expected_softplus(better - worse, torch.sqrt(torch.exp(2 * better_log) + torch.exp(2 * worse_log)))
