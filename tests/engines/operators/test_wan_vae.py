"""A Wan VAE with our convolution encodes and decodes what diffusers' own does, chunk by chunk with its caches."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d

from engines.operators.wan_vae import OperatorConv, use_vae_operators
from kernels.dispatch import Implementation, recorded, using


def _small() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()  # fmt: skip


def _both_ways(vae: AutoencoderKLWan, film: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        latent = vae.encode(film).latent_dist.mode()
        return [latent, vae.decode(latent, return_dict=False)[0]]


def test_the_swapped_vae_is_diffusers() -> None:
    """Latents and frames of 9 frames, in three chunks, to the last bit on a CPU; the weights keep their names."""
    vae, film = _small(), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    want, names = _both_ways(vae, film), set(vae.state_dict())
    use_vae_operators(vae)
    with recorded() as ran:
        got = _both_ways(vae, film)
    assert {name for name, _ in ran} == {"causal_conv3d"}
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))
    assert set(vae.state_dict()) == names
    left = [m for m in vae.modules() if type(m) is WanCausalConv3d]
    assert [m.stride for m in left] == [(2, 1, 1)], "only the encoder's strided convolution stays"


def test_so_is_the_twins() -> None:
    """The decoder with every convolution in Triton's interpreter, caches and all."""
    vae = _small()
    latent = torch.randn(1, 4, 2, 2, 2)
    with torch.no_grad():
        want = vae.decode(latent, return_dict=False)[0]
        use_vae_operators(vae)
        with using(Implementation.INTERPRETER):
            got = vae.decode(latent, return_dict=False)[0]
    assert float((got - want).abs().max()) <= 1e-5 * float(want.abs().max())


def test_it_is_still_a_convolution() -> None:
    """The VAE counts its causal convolutions to make their caches, and a repr tells the sizes."""
    vae = _small()
    use_vae_operators(vae)
    ours = next(m for m in vae.modules() if isinstance(m, OperatorConv))
    assert isinstance(ours, WanCausalConv3d)
    assert "kernel_size=(3, 3, 3)" in repr(ours)
