"""Three ways to look across frames, from which readers of different architecture are built.

Layout is channels last throughout, so that frames fold into the batch and time into matrix products without a copy.
Legend: B batch, F frames, H W size of a feature map, D width, N heads.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from post_train.attention import attend

_FARTHEST = 16  # frames; beyond it all distances look alike


class Mixing(StrEnum):
    """How a block looks across frames: a convolution over three, channels shifted by a frame, or attention over all."""

    CONVOLUTION = "convolution"
    SHIFT = "shift"
    ATTENTION = "attention"


class Norm(nn.Module):
    """Root-mean-square norm over the last axis, in fp32 where the rest is bf16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * self.gain).to(x.dtype)


def spatial(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` over each frame of [B, F, H, W, D]."""
    b, f = x.shape[:2]
    out = conv(x.flatten(0, 1).permute(0, 3, 1, 2))
    return out.permute(0, 2, 3, 1).unflatten(0, (b, f))


def neighbours(x: Tensor, reach: int = 1) -> Tensor:
    """[B, F, ..., D] to [B, F, ..., 3 D]: each frame between those `reach` before and after; the ends repeat."""
    last = x.shape[1] - 1
    at = torch.arange(x.shape[1], device=x.device)
    return torch.cat([x[:, (at - reach).clamp(min=0)], x, x[:, (at + reach).clamp(max=last)]], -1)


class _Convolution(nn.Module):
    """A spatial 3x3 convolution, then one over three frames that lie `reach` apart."""

    def __init__(self, width: int, _heads: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.frames = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.frames(neighbours(F.gelu(spatial(self.conv, x)), self.reach))


class _Shift(nn.Module):
    """A quarter of the channels comes from `reach` frames before, a quarter from after; then a 3x3 convolution."""

    def __init__(self, width: int, _heads: int, reach: int) -> None:
        super().__init__()
        self.quarter, self.reach = width // 4, reach
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        q, last = self.quarter, x.shape[1] - 1
        at = torch.arange(x.shape[1], device=x.device)
        before = x[:, (at - self.reach).clamp(min=0), ..., :q]
        after = x[:, (at + self.reach).clamp(max=last), ..., q : 2 * q]
        return spatial(self.conv, torch.cat([before, after, x[..., 2 * q :]], -1))


class _Attention(nn.Module):
    """A spatial 3x3 convolution, then attention of each place to itself over all frames, biased by distance in time."""

    def __init__(self, width: int, heads: int, _reach: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * _FARTHEST + 1))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(spatial(self.conv, x))
        b, f, h, w, _ = x.shape
        places = self.qkv(x).permute(0, 2, 3, 1, 4).reshape(b * h * w, f, 3, self.heads, -1)
        query, key, value = places.permute(2, 0, 3, 1, 4).unbind(0)
        at = torch.arange(f, device=x.device)
        apart = (at[None] - at[:, None]).clamp(-_FARTHEST, _FARTHEST) + _FARTHEST
        seen = attend(query, key, value, self.distance[:, apart].float())
        back = seen.transpose(1, 2).reshape(b, h, w, f, -1).permute(0, 3, 1, 2, 4)
        return x + self.out(back)


_MIXERS: dict[Mixing, type[_Convolution | _Shift | _Attention]] = {
    Mixing.CONVOLUTION: _Convolution,
    Mixing.SHIFT: _Shift,
    Mixing.ATTENTION: _Attention,
}


class Block(nn.Module):
    """A residual block [B, F, H, W, D] to the same: normalise, mix space and time, then one layer place by place.

    It looks at frames `reach` before and after each; attention sees all frames anyway.
    """

    def __init__(self, mixing: Mixing, width: int, heads: int, *, reach: int = 1) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.mixer = _MIXERS[mixing](width, heads, reach)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.gelu(self.mixer(self.norm(x))))
