"""DiffusionNFT (arXiv 2509.16117): a policy learnt on the forward process, without draws, likelihoods or guidance.

Legend: B rows, C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

Latents = Float[Tensor, "B C T H W"]
Rows = Float[Tensor, " B"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NftRule:
    """`beta` mixes the present policy into the old one; `reference` times the squared step from the reference is added.

    Of an advantage, clipped to `clip`, the share of good is 1/2 + advantage / (2 clip).
    """

    beta: float = 1.0
    reference: float = 1e-4
    clip: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OldPolicy:
    """How the policy that makes films follows the one that learns: an average whose decay grows with the update.

    decay = min(slope * (update - flat), most), 0 while that is negative.
    """

    slope: float = 0.001
    flat: int = 0
    most: float = 0.5

    def decay(self, update: int) -> float:
        """The share of itself that the old policy keeps at an update counted from 1."""
        return min(max(0.0, self.slope * (update - self.flat)), self.most)


@jaxtyped(typechecker=beartype)
def optimality(advantages: Rows, clip: float) -> Rows:
    """The share of good in each film, in [0, 1]."""
    return 0.5 + 0.5 * advantages.clamp(-clip, clip) / clip


@jaxtyped(typechecker=beartype)
def nft_losses(
    rule: NftRule,
    *,
    clean: Latents,
    noisy: Latents,
    sigmas: Rows,
    velocity: Latents,
    old: Latents,
    reference: Latents,
    good: Rows,
) -> Rows:
    """Equation 6 in the space of clean latents: the good side should come near the film, the bad side far from it.

    v+ = (1 - beta) old + beta v and v- = (1 + beta) old - beta v; each side's squared error of x - sigma v is divided
    by its mean absolute error, which takes no gradient.
    """
    s = sigmas[:, None, None, None, None]
    towards = (1 - rule.beta) * old + rule.beta * velocity
    away = (1 + rule.beta) * old - rule.beta * velocity
    good_side = _adaptive(noisy - s * towards, clean)
    bad_side = _adaptive(noisy - s * away, clean)
    policy = (good * good_side + (1 - good) * bad_side) * rule.clip / rule.beta
    return policy + rule.reference * (velocity - reference).square().mean((1, 2, 3, 4))


def _adaptive(predicted: Tensor, clean: Tensor) -> Tensor:
    error = predicted - clean
    scale = error.detach().abs().mean((1, 2, 3, 4)).clamp(min=1e-5)
    return error.square().mean((1, 2, 3, 4)) / scale


def renewed(old: dict[str, Tensor], present: dict[str, Tensor], decay: float) -> None:
    """The old policy's weights, moved towards the present ones in place."""
    with torch.no_grad():
        for name, weight in old.items():
            weight.lerp_(present[name].detach(), 1 - decay)
