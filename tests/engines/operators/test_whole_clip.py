"""One pass over a whole clip equals diffusers' chunked VAE, for Wan 2.1's layout and for Wan 2.2's."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from engines.operators.whole_clip import decode, encode_moments


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("num_frames", [1, 5, 17])
@pytest.mark.parametrize("temporal", [[True, True], [False, True]])
def test_whole_equals_chunked(residual: bool, num_frames: int, temporal: list[bool]) -> None:
    """Means, log-variances and decoded frames agree to rounding."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=6,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=temporal,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=2 ** sum(temporal),
        scale_factor_spatial=8,
        is_residual=residual,
    ).eval()
    video = torch.rand(2, 3, num_frames, 32, 16) * 2 - 1
    with torch.no_grad():
        stock = vae.encode(video).latent_dist
        mean, log_variance = encode_moments(vae, video)
        assert torch.allclose(mean, stock.mean, atol=1e-5)
        assert torch.allclose(log_variance, stock.logvar, atol=1e-4)
        assert torch.allclose(decode(vae, mean).clamp(-1, 1), vae.decode(stock.mean).sample, atol=1e-5)
