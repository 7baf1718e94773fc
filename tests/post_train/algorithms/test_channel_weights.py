"""What a latent channel counts: by how far it moves the picture."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from engines.operators.whole_clip import decode, encode_moments
from post_train.algorithms.channel_weights import channel_weights, decoder_gains
from post_train.algorithms.vae import clip_tensor
from post_train.data.diorama.world import make_clip
from tests.post_train.small_recipes import small_vae

_SIZE = {"side": 32, "num_frames": 9}


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    """A small VAE whose third channel is not read by its decoder."""
    torch.manual_seed(3)
    vae = AutoencoderKLWan(**{**small_vae().vae.model, "latents_std": [0.5 + 0.1 * i for i in range(8)]})
    with torch.no_grad():
        vae.post_quant_conv.weight[:, 2] = 0
    return vae.eval()


def test_a_gain_is_what_noise_in_the_channel_does_to_the_picture(vae: AutoencoderKLWan) -> None:
    """The estimate agrees with small noise put into each channel in turn, and is zero for what is not read."""
    gains = decoder_gains(vae, **_SIZE, clips=8)
    std = torch.tensor(vae.config["latents_std"])
    generator = torch.Generator().manual_seed(1)
    video = torch.stack([clip_tensor(make_clip(6 * 10**8 + i, **_SIZE).frames) for i in range(8)])
    with torch.no_grad():
        latents = encode_moments(vae, video)[0]
        picture = decode(vae, latents)
        for channel in range(8):
            noise = torch.zeros_like(latents)
            noise[:, channel] = 1e-2 * std[channel] * torch.randn(noise[:, channel].shape, generator=generator)
            moved = (decode(vae, latents + noise) - picture).square().mean().sqrt() / 1e-2
            assert float(gains[channel]) == pytest.approx(float(moved), rel=0.35, abs=1e-6)
    assert float(gains[2]) == 0


def test_weights_have_mean_one_and_none_is_nothing() -> None:
    """Power 0 counts all alike, more power parts them further; what is unseen keeps a tenth."""
    gains = torch.tensor([0.0, 1.0, 2.0, 5.0])
    assert torch.equal(channel_weights(gains[1:], 0.0), torch.ones(3))
    for power in (1.0, 2.0):
        weights = channel_weights(gains, power)
        assert float(weights.mean()) == pytest.approx(1)
        assert torch.equal(weights.argsort(), torch.arange(4))
        assert float(weights[0]) > 0.05
    assert float(channel_weights(gains, 2.0)[3]) > float(channel_weights(gains, 1.0)[3])
