"""Our causal convolution in diffusers' Wan VAE: each chunk's frames and its cache are read where they lie.

A convolution is replaced by one that has its weights under the same names; nothing of diffusers is patched.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d
from torch import nn

from engines.operators.wan import check_diffusers
from kernels.conv3d import causal_conv3d


def use_vae_operators(vae: AutoencoderKLWan) -> None:
    """Puts our convolution into `vae`, in place; strided ones, which only the encoder has, stay as they are.

    InvalidModel when diffusers' version is not one whose VAE is known.
    """
    check_diffusers()
    for module in list(vae.modules()):
        for name, child in list(module.named_children()):
            if type(child) is WanCausalConv3d and _fits(child):
                setattr(module, name, OperatorConv(child))


def _fits(conv: WanCausalConv3d) -> bool:
    plain = conv.stride == (1, 1, 1) and conv.dilation == (1, 1, 1) and conv.groups == 1
    return plain and conv._padding[4] == conv.kernel_size[0] - 1  # noqa: SLF001  it is where diffusers keeps it


class OperatorConv(WanCausalConv3d):
    """A `WanCausalConv3d` by our operator; of its kind still, for the VAE counts those when it makes its caches."""

    def __init__(self, conv: WanCausalConv3d) -> None:
        nn.Module.__init__(self)
        # What Conv3d's own methods (repr, state dict) look at; the weights are the same tensors.
        kept = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        for name in (*kept, "transposed", "output_padding", "padding_mode", "_padding"):
            setattr(self, name, getattr(conv, name))
        # Channels last, as the operator reads it: else each call would copy it so.
        self.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last_3d))
        self.weight.requires_grad_(conv.weight.requires_grad)
        self.bias = conv.bias
        self.train(conv.training)

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """[B, C, T, H, W] to [B, O, T, H', W']; `cache_x` holds frames before x."""
        columns, _, rows, _, before, _ = (int(p) for p in self._padding)
        cache = None if cache_x is None or before == 0 else cache_x.to(x.device)
        return causal_conv3d(x, self.weight, self.bias, cache=cache, padding=(rows, columns))
