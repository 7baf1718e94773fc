"""A widened VAE computes what the narrow one did, until it is trained."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from engines.operators.whole_clip import decode, encode_moments
from post_train.widening import widen_vae
from tests.post_train.small_recipes import small_vae


def _vae(base_dim: int, channels: int, seed: int, *, decoder: int | None = None) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    shape = {"base_dim": base_dim, "z_dim": channels, "decoder_base_dim": decoder}
    statistics = {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    return AutoencoderKLWan(**{**small_vae().vae.model, **shape, **statistics})


@torch.no_grad()
@pytest.mark.parametrize(("base_dim", "channels"), [(16, 8), (24, 12)])
def test_a_widened_vae_computes_the_same(base_dim: int, channels: int) -> None:
    """Twice or thrice the width and more latent channels: the same moments and the same film, to rounding."""
    narrow, wide = _vae(8, 8, 0), _vae(base_dim, channels, 1)
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    before = decode(wide, encode_moments(wide, video)[0])
    widen_vae(narrow, wide, torch.Generator().manual_seed(0), noise=0.0)
    mean, log_variance = encode_moments(narrow, video)
    wide_mean, wide_log_variance = encode_moments(wide, video)
    film = decode(narrow, mean)
    assert torch.allclose(wide_mean[:, :8], mean, atol=1e-4)
    assert torch.allclose(wide_log_variance[:, :8], log_variance, atol=1e-4)
    assert torch.count_nonzero(wide_mean[:, 8:]) == 0
    assert torch.allclose(decode(wide, wide_mean), film, atol=1e-4)
    assert not torch.allclose(before, film, atol=1e-2), "the two must differ at first, or this test proves nothing"


@torch.no_grad()
def test_the_decoder_can_be_widened_alone() -> None:
    """The encoder stays as it is, to the bit, so that latents made with it stay valid."""
    narrow, wide = _vae(8, 8, 0), _vae(8, 8, 1, decoder=16)
    widen_vae(narrow, wide, torch.Generator().manual_seed(0))
    for name, value in narrow.encoder.state_dict().items():
        assert torch.equal(wide.encoder.state_dict()[name], value), name
    latents = torch.randn(1, 8, 3, 4, 4)
    assert torch.allclose(decode(wide, latents), decode(narrow, latents), atol=0.3)
    assert wide.decoder.conv_in.weight.shape[0] == 2 * narrow.decoder.conv_in.weight.shape[0]


@torch.no_grad()
def test_noise_lets_the_copies_part() -> None:
    """With noise no two copies of a channel stay equal, and the film is still nearly the same."""
    narrow, wide = _vae(8, 8, 0), _vae(16, 8, 1)
    widen_vae(narrow, wide, torch.Generator().manual_seed(0))
    kernel = wide.encoder.conv_in.weight
    assert not torch.equal(kernel[:8], kernel[8:])
    assert torch.allclose(kernel[:8], kernel[8:], atol=0.2 * float(kernel.std()))


@pytest.mark.parametrize(("base_dim", "channels"), [(12, 8), (16, 4)])
def test_what_cannot_be_widened_is_refused(base_dim: int, channels: int) -> None:
    """One and a half times the width, or fewer latent channels, are named in the error."""
    with pytest.raises(ValueError, match=r"cannot be widened"):
        widen_vae(_vae(8, 8, 0), _vae(base_dim, channels, 1), torch.Generator())
