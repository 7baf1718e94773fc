"""How much each latent channel is seen in the picture, and what its error should therefore count in training.

Pipelines bring every channel to unit variance, so a plain mean squared error counts channels alike. They are not: of
the built-in model's 48, twelve make three quarters of what is seen and three nothing. Weights leave the minimum of the
loss where it is, at the conditional mean, and decide what a model of finite size and time gets right first.
Legend: B batch, C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

import torch
from beartype import beartype
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from jaxtyping import Float, jaxtyped
from torch import Tensor

from engines.operators.whole_clip import decode, encode_moments
from post_train.algorithms.vae import clip_tensor
from post_train.data.diorama.world import make_clip

_SEED = 6 * 10**8  # first of the clips that are probed
_LEAST = 0.1  # of the mean weight: a channel that is not seen must still be denoised, for the model reads it


def decoder_gains(
    vae: AutoencoderKLWan, *, side: int = 64, num_frames: int = 17, clips: int = 8
) -> Float[Tensor, " C"]:
    """The root mean square change of the picture per unit of each normalised channel, for small changes.

    On a few small clips of the world: a gain hardly depends on what is shown or how large.
    By Hutchinson's estimate: for pixels r drawn from N(0, 1), E[(J^T r)^2] is the squared length of J's columns.
    """
    generator = torch.Generator().manual_seed(_SEED)
    std = torch.tensor(vae.config["latents_std"])
    squares = torch.zeros_like(std)
    for seed in range(_SEED, _SEED + clips):
        video = clip_tensor(make_clip(seed, side=side, num_frames=num_frames).frames)[None]
        with torch.no_grad():
            latents = encode_moments(vae, video)[0]
        latents.requires_grad_()
        picture = decode(vae, latents)
        (columns,) = torch.autograd.grad(picture, latents, torch.randn(picture.shape, generator=generator))
        squares += columns.square().sum((0, 2, 3, 4)) / picture.numel() / clips
    return squares.sqrt() * std


@jaxtyped(typechecker=beartype)
def channel_weights(gains: Float[Tensor, " C"], power: float) -> Float[Tensor, " C"]:
    """Weights of mean 1 in proportion to gains to the `power`, none under a tenth of the mean.

    0 counts all alike, 2 counts errors as pixels do; between, what is fine and faint has a say as well.
    """
    raw = gains**power
    kept = (raw / raw.mean()).clamp(min=_LEAST)
    return kept / kept.mean()
