"""The network behind visual quality: a film in, the mean and the log deviation of its quality out.

Legend: B batch, F frames, H W frame size, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from post_train.rewards.reader_blocks import Block, Mixing, Norm, spatial

# Deviations lie between e^-4 and e^2: the quadrature of the ranking loss is good there.
_MIDDLE, _REACH = -1.0, 3.0
_DETAIL, _CHANGE = 12.0, 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualConfig:
    """A network's shape: `fine` channels at stride 4, then `depth` blocks of `width` at stride 8."""

    mixing: Mixing
    fine: int
    width: int
    depth: int
    heads: int


def _channels(video: Tensor) -> Tensor:
    """Colour, fine detail and change over time, each amplified to where a network sees it: [B, F, 9, H, W]."""
    frames = video.transpose(1, 2)
    flat = frames.flatten(0, 1)
    smooth = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    detail = torch.tanh(_DETAIL * (flat - smooth)).unflatten(0, frames.shape[:2])
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    return torch.cat([frames, detail, torch.tanh(_CHANGE * (frames - before))], 2)


def _statistics(x: Tensor) -> Tensor:
    """Mean, spread and extremes over frames and places: [B, F, h, w, D] to [B, 4 D] in fp32."""
    x = x.float().flatten(1, 3)
    return torch.cat([x.mean(1), x.std(1), x.amax(1), x.amin(1)], -1)


class VisualNetwork(nn.Module):
    """Quality is read from statistics of fine and of coarse features: one bad corner or frame spoils a film."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        self.config = config
        fine, width = config.fine, config.width
        self.stem = nn.Conv2d(36, fine, 3, stride=2, padding=1)
        self.fine_norm = Norm(fine)
        self.fine = nn.Conv2d(fine, fine, 3, padding=1)
        self.down = nn.Conv2d(fine, width, 2, stride=2)
        self.blocks = nn.ModuleList(Block(config.mixing, width, config.heads, reach=1) for _ in range(config.depth))
        self.norms = nn.ModuleList((Norm(fine), Norm(width)))
        self.hidden = nn.Linear(4 * (fine + width), 2 * width)
        self.out = nn.Linear(2 * width, 2)
        nn.init.zeros_(self.out.bias)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """`video` [B, 3, F, H, W] in [-1, 1], H and W multiples of 8; gives mean [B] and log deviation [B] in fp32."""
        x = F.pixel_unshuffle(_channels(video), 2).permute(0, 1, 3, 4, 2)
        x = F.gelu(spatial(self.stem, x))
        x = x + F.gelu(spatial(self.fine, self.fine_norm(x)))
        local = _statistics(self.norms[0](x))
        x = spatial(self.down, x)
        for block in self.blocks:
            x = block(x)
        pooled = torch.cat([local, _statistics(self.norms[1](x))], -1)
        mean, raw = self.out(F.gelu(self.hidden(pooled))).float().unbind(-1)
        return mean, _MIDDLE + _REACH * torch.tanh(raw / _REACH)
