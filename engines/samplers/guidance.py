"""Classifier-free guidance (arXiv:2207.12598) with a scale of its own for each row.

B batch, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Velocity:
    """What a transformer said of a batch: conditional, and where it is guided also unconditional with a scale [B]."""

    conditional: torch.Tensor
    unconditional: torch.Tensor | None = None
    scales: torch.Tensor | None = None

    @property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """All three, as the operators take them."""
        return self.conditional, self.unconditional, self.scales

    def guided(self) -> torch.Tensor:
        """The one velocity [B, C, T, H, W] that a sampler follows."""
        if self.unconditional is None or self.scales is None:
            return self.conditional
        return guided_velocity(self.conditional, self.unconditional, self.scales)


def guided_velocity(cond_BCTHW: torch.Tensor, uncond_BCTHW: torch.Tensor, scale_B: torch.Tensor) -> torch.Tensor:
    """v = v_uncond + w * (v_cond - v_uncond), in diffusers' convention: w = 1 is the conditional velocity itself."""
    return uncond_BCTHW + scale_B.view(-1, 1, 1, 1, 1) * (cond_BCTHW - uncond_BCTHW)
