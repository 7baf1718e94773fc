"""Training losses as pure functions of tensors in fp32.

Legend: B batch, C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

_HIGH_NOISE = 0.75


@jaxtyped(typechecker=beartype)
def shifted_sigmas(u: Float[Tensor, " B"], shift: float) -> Float[Tensor, " B"]:
    """Noise levels with the resolution shift of inference: shift * u / (1 + (shift - 1) * u), u in [0, 1]."""
    return shift * u / (1 + (shift - 1) * u)


@jaxtyped(typechecker=beartype)
def noised(
    x0: Float[Tensor, "B C T H W"], noise: Float[Tensor, "B C T H W"], sigmas: Float[Tensor, " B"]
) -> Float[Tensor, "B C T H W"]:
    """The point of the straight path at each noise level: (1 - sigma) * x0 + sigma * noise."""
    s = sigmas[:, None, None, None, None]
    return (1 - s) * x0 + s * noise


@jaxtyped(typechecker=beartype)
def flow_matching_errors(
    velocity: Float[Tensor, "B C T H W"],
    x0: Float[Tensor, "B C T H W"],
    noise: Float[Tensor, "B C T H W"],
    weights: Float[Tensor, " C"] | None = None,
) -> Float[Tensor, " B"]:
    """Each row's mean squared error of the predicted velocity against noise - x0 (Lipman et al., arXiv 2210.02747).

    `weights` of mean 1 are what each channel's error counts; None counts all alike.
    """
    errors = (velocity - (noise - x0)).square().mean((2, 3, 4))
    return errors.mean(1) if weights is None else (errors * weights).mean(1)


@jaxtyped(typechecker=beartype)
def logit_normal_levels(batch: int, generator: torch.Generator, *, uniform_share: float = 0.2) -> Float[Tensor, " B"]:
    """Levels u in (0, 1): logit-normal (Esser et al., arXiv 2403.03206), partly uniform so that no end starves."""
    normal = torch.sigmoid(torch.randn(batch, generator=generator))
    uniform = torch.rand(batch, generator=generator)
    pick = torch.rand(batch, generator=generator) < uniform_share
    return torch.where(pick, uniform, normal)


@jaxtyped(typechecker=beartype)
def noisy_mean(errors: Float[Tensor, " B"], sigmas: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """The mean of those of `errors` [B] whose level is above 0.75, of all when none is; without asking the device."""
    noisy = (sigmas > _HIGH_NOISE).to(errors.dtype)
    count = noisy.sum()
    return torch.where(count > 0, (errors * noisy).sum() / count.clamp(min=1), errors.mean())
