"""Classifier-free guidance (arXiv:2207.12598) with a scale of its own for each row.

B batch, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

import torch


def guided_velocity(cond_BCTHW: torch.Tensor, uncond_BCTHW: torch.Tensor, scale_B: torch.Tensor) -> torch.Tensor:
    """v = v_uncond + w * (v_cond - v_uncond), in diffusers' convention: w = 1 is the conditional velocity itself."""
    return uncond_BCTHW + scale_B.view(-1, 1, 1, 1, 1) * (cond_BCTHW - uncond_BCTHW)
