"""Widens a trained Wan VAE without changing what it computes, so that a small one's training is not lost on a larger.

Net2Net (Chen et al., arXiv 1511.05641): every hidden channel is repeated and the weights that read it are divided by
the number of copies. Channels are repeated as a whole block (c0 c1 .. c0 c1 ..), which the averaging and repeating
shortcuts of Wan 2.2 keep in step with. A little noise then lets the copies part.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor


def _tiled(weight: Tensor, dim: int, copies: int, groups: int = 1) -> Tensor:
    """`weight` with `dim` repeated `copies` times as a block, in each of `groups` equal parts of that dimension."""
    return torch.cat([torch.cat([part] * copies, dim) for part in weight.chunk(groups, dim)], dim)


def _parts_of(name: str) -> int:
    """How many stacked outputs a layer's first dimension holds: q, k and v, or two frames."""
    return 3 if "to_qkv" in name else 2 if "upsampler.time_conv" in name else 1


def _widened(name: str, source: Tensor, shape: torch.Size, copies: int) -> Tensor:
    out = source
    if source.ndim > 1 and source.shape[1] * copies == shape[1]:
        out = _tiled(out, 1, copies) / copies
    if source.shape[0] * copies == shape[0]:
        out = _tiled(out, 0, copies, _parts_of(name))
    if "to_qkv" in name:
        # Scores sum over `copies` times as many channels and are divided by the root of as many.
        out = torch.cat([out[: len(out) // 3] / math.sqrt(copies), out[len(out) // 3 :]])
    return out


def _with_more_latents(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """`value` with room for new latent channels: the new ones are written by nothing yet and read by nothing."""
    if name.startswith(("encoder.conv_out", "quant_conv")):
        mean, log_variance = value.chunk(2)
        extra = torch.zeros(shape[0] // 2 - len(mean), *mean.shape[1:])
        quiet = extra - 6.0 if name == "quant_conv.bias" else extra
        value = torch.cat([mean, extra, log_variance, quiet])
    if name.startswith("post_quant_conv"):
        value = torch.cat([value, torch.zeros(shape[0] - len(value), *value.shape[1:])])
    if name.startswith(("quant_conv.weight", "post_quant_conv.weight", "decoder.conv_in.weight")):
        fresh = torch.zeros(value.shape[0], shape[1] - value.shape[1], *value.shape[2:])
        halves = value.chunk(2, 1) if name == "quant_conv.weight" else (value,)
        value = torch.cat([t for h in halves for t in (h, fresh[:, : fresh.shape[1] // len(halves)])], 1)
    return value


def _widths(vae: AutoencoderKLWan) -> tuple[int, int]:
    """Base widths of the encoder and of the decoder."""
    return vae.config["base_dim"], vae.config["decoder_base_dim"] or vae.config["base_dim"]


def _copies(source: AutoencoderKLWan, target: AutoencoderKLWan) -> tuple[int, int]:
    """How many channels of `target` each hidden one of `source` becomes, in the encoder and in the decoder."""
    pairs = [divmod(wide, narrow) for wide, narrow in zip(_widths(target), _widths(source), strict=True)]
    if any(rest or copies < 1 for copies, rest in pairs) or target.config["z_dim"] < source.config["z_dim"]:
        raise ValueError(
            f"a VAE of widths {_widths(source)} with {source.config['z_dim']} latent channels cannot be widened to "
            f"{_widths(target)} with {target.config['z_dim']}; take whole multiples of its widths"
        )
    return pairs[0][0], pairs[1][0]


@torch.no_grad()
def widen_vae(
    source: AutoencoderKLWan, target: AutoencoderKLWan, generator: torch.Generator, *, noise: float = 0.02
) -> None:
    """Gives `target`, of whole multiples of `source`'s widths and at least its latent channels, the same function.

    `noise` is that of each widened weight, in deviations of its tensor; with none the copies would never part.
    ValueError when the two are not such a pair.
    """
    wide = target.state_dict()
    in_encoder, in_decoder = _copies(source, target)
    new = {}
    for name, value in source.state_dict().items():
        copies = in_decoder if name.startswith("decoder.") else in_encoder
        grown = _with_more_latents(name, _widened(name, value, wide[name].shape, copies), wide[name].shape)
        if grown.shape != wide[name].shape:
            raise ValueError(f"{name} of {tuple(value.shape)} cannot be widened to {tuple(wide[name].shape)}")
        if copies > 1 and grown.ndim > 1:
            grown = grown + noise * grown.std() * torch.randn(grown.shape, generator=generator)
        new[name] = grown
    target.load_state_dict(new)
