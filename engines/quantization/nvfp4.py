"""NVFP4: numbers of 4 bits (E2M1), a float8 scale for each 16 of them, and one float32 scale for the tensor.

N output channels, D input channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LARGEST, _LARGEST_SCALE = 6.0, 448.0
_LEAST = 1e-12


def tensor_scale(largest: float) -> float:
    """The float32 scale with which the block of the largest number has the largest float8 scale."""
    return max(largest, _LEAST) / (_LARGEST * _LARGEST_SCALE)


def blocks_rounded(x: Tensor, whole: float) -> tuple[Tensor, Tensor]:
    """Steps of `x` [..., D], numbers that E2M1 has, and what one is worth in each block, [..., D / 16].

    The latter are float8 numbers times `whole`, in float32.
    """
    blocks = x.float().unflatten(-1, (-1, BLOCK))
    wanted = blocks.abs().amax(-1) / (_LARGEST * whole)
    scale = wanted.clamp(max=_LARGEST_SCALE).to(torch.float8_e4m3fn).float() * whole
    ratio = blocks / scale.clamp(min=_LEAST).unsqueeze(-1)
    return (ratio.sign() * _nearest(ratio.abs())).flatten(-2), scale


def codes(steps: Tensor) -> Tensor:
    """The four bits of each step, uint8: sign, and which of the eight values."""
    values = torch.tensor(_VALUES, device=steps.device)
    return torch.bucketize(steps.abs().contiguous(), values).to(torch.uint8) | (
        torch.signbit(steps).to(torch.uint8) << 3
    )


def _nearest(x: Tensor) -> Tensor:
    values = torch.tensor(_VALUES, device=x.device)
    between = (values[1:] + values[:-1]) / 2
    # A number in the middle goes to the even code, as hardware rounds: 0.25 to 0, 0.75 to 1, 1.25 to 1, ...
    x = x.contiguous()
    down, up = torch.bucketize(x, between), torch.bucketize(x, between, right=True)
    return values[torch.where(down % 2 == 0, down, up)]
