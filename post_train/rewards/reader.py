"""The reader network: a film in; where objects are and of which class, what each does, and what the place is out.

Objects are found as CenterNet finds them (Zhou et al., "Objects as Points", arXiv 1904.07850): a heatmap of centres,
with offset, size and class at every place of a map of stride 4. What an object does over the film, and its colour, are
read from the features along its track.
Legend: B batch, F frames, H W frame size, h w of the stride-4 map, S tracks, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from post_train.data.diorama.vocabulary import COLOURS, OBJECTS, Action, Camera, Ground, Sky, Weather
from post_train.rewards.reader_blocks import Block, Mixing, Norm, neighbours, spatial

STRIDE = 4
CLASSES = tuple(OBJECTS)
COLOUR_NAMES = tuple(COLOURS)
ACTIONS: tuple[Action | None, ...] = (*Action, None)
PLACE: dict[str, tuple[object, ...]] = {
    "ground": tuple(Ground),
    "sky": tuple(Sky),
    "weather": tuple(Weather),
    "camera": tuple(Camera),
    "hills": (False, True),
}
# Frames between those that a block compares: a slow pan moves a place of the map by a quarter in one frame.
_REACHES = (1, 2, 4)
_GEOMETRY = 7
_QUERIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderConfig:
    """A reader's shape: `fine` channels at stride 4, `width` at stride 8, and how its `depth` blocks look over time."""

    mixing: Mixing
    fine: int
    width: int
    depth: int
    heads: int
    fine_blocks: int
    change_reach: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """Per frame and place: `heat` [B, F, h, w] and `classes` [B, F, h, w, 40] logits, `box` [B, F, h, w, 3].

    A box is the centre's offset from the middle of the place (x, y, in places) and the log of the size in places.
    `features` [B, F, h, w, D] are what attributes are read from; `place` has the logits [B, n] of each of PLACE.
    """

    heat: Tensor
    classes: Tensor
    box: Tensor
    features: Tensor
    place: dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Where attributes are read, each [B, S, F]: x, y and size in fractions of the frame, `presence` 0 to 1."""

    x: Tensor
    y: Tensor
    size: Tensor
    presence: Tensor


class _Place(nn.Module):
    """The heads of the whole film: a few learned queries gather features over all frames and places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width + 2)
        self.key = nn.Linear(width + 2, _QUERIES)
        self.value = nn.Linear(width + 2, width)
        self.hidden = nn.Linear(_QUERIES * width, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in PLACE.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        b, f, h, w, _ = x.shape
        down = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None, None].expand(b, f, h, w, 1)
        across = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)[:, None].expand(b, f, h, w, 1)
        x = self.norm(torch.cat([x, 2 * down, 2 * across], -1)).flatten(1, 3)
        weights = self.key(x).float().softmax(1).to(x.dtype)
        gathered = weights.mT @ self.value(x)
        hidden = F.gelu(self.hidden(gathered.flatten(1)))
        return {name: head(hidden).float() for name, head in self.heads.items()}


class _Along(nn.Module):
    """Action and colour of an object, from the features along its track and from the track itself."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(features + _GEOMETRY, width)
        self.norms = nn.ModuleList(Norm(width) for _ in range(3))
        self.frames = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(3))
        self.action = nn.Linear(2 * width, len(ACTIONS))
        self.colour = nn.Linear(features, len(COLOUR_NAMES))

    def forward(self, features: Tensor, tracks: Tracks) -> tuple[Tensor, Tensor]:
        """`features` [B, S, F, D]; gives logits of action [B, S, 12] and colour [B, S, 8]."""
        b, s, _, _ = features.shape
        x = torch.cat([features, _geometry(tracks).to(features.dtype)], -1)
        x = self.into(x).flatten(0, 1)
        for reach, norm, layer in zip((1, 2, 4), self.norms, self.frames, strict=True):
            x = x + F.gelu(layer(neighbours(norm(x), reach)))
        seen = tracks.presence.flatten(0, 1)[..., None].float() + 1e-3
        mean = (x.float() * seen).sum(1) / seen.sum(1)
        top = (x.float() * (seen > 0.5)).amax(1)
        action = self.action(torch.cat([mean, top], -1)).unflatten(0, (b, s))
        shown = tracks.presence[..., None].float() + 1e-3
        colour = self.colour((features.float() * shown).sum(2) / shown.sum(2))
        return action.float(), colour.float()


def _geometry(tracks: Tracks) -> Tensor:
    """[B, S, F, 7]: place and size against the track's mean, their steps, and presence, all of order one."""
    seen = tracks.presence + 1e-3
    values = torch.stack([tracks.x, tracks.y, tracks.size.clamp(min=0.02).log()], -1)
    mean = (values * seen[..., None]).sum(2, keepdim=True) / seen.sum(2)[..., None, None]
    steps = torch.cat([torch.zeros_like(values[:, :, :1]), values[:, :, 1:] - values[:, :, :-1]], 2)
    return torch.cat([4 * (values - mean), 20 * steps, tracks.presence[..., None]], -1)


def _pooled(features: Tensor, tracks: Tracks) -> Tensor:
    """Features [B, F, h, w, D] averaged around each track's places: [B, S, F, D]."""
    b, f, h, w, d = features.shape
    rows = (torch.arange(h, device=features.device) + 0.5) / h
    columns = (torch.arange(w, device=features.device) + 0.5) / w
    spread = (tracks.size * 0.25).clamp(min=0.5 / max(h, w))[..., None]
    down = (-((rows - tracks.y[..., None]) / spread).square() / 2).clamp(min=-60).exp()
    across = (-((columns - tracks.x[..., None]) / spread).square() / 2).clamp(min=-60).exp()
    weights = down[..., :, None] * across[..., None, :]
    weights = weights / (weights.sum((-2, -1), keepdim=True) + 1e-12)
    flat = weights.flatten(-2).transpose(1, 2).to(features.dtype) @ features.reshape(b, f, h * w, d)
    return flat.transpose(1, 2)


class Reader(nn.Module):
    """`forward` gives the maps and the place; `attributes` reads action and colour along tracks found in them."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        fine, width = config.fine, config.width
        self.stem = nn.Conv2d(36, fine, 3, stride=2, padding=1)
        self.fine = nn.ModuleList(_Fine(fine) for _ in range(config.fine_blocks))
        self.down = nn.Conv2d(fine, width, 2, stride=2)
        self.blocks = nn.ModuleList(
            Block(config.mixing, width, config.heads, reach=_REACHES[i % len(_REACHES)]) for i in range(config.depth)
        )
        self.norm = Norm(width)
        self.up = nn.Linear(width, 4 * fine)
        self.join = _Fine(fine)
        self.out = Norm(fine)
        self.heat = nn.Linear(fine, 1)
        self.classes = nn.Linear(fine, len(CLASSES))
        self.box = nn.Linear(fine, 3)
        self.place = _Place(width)
        self.along = _Along(fine, width)
        nn.init.constant_(self.heat.bias, -math.log(99))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, video: Tensor) -> Maps:
        """`video` [B, 3, F, H, W] in [-1, 1], H and W multiples of 8."""
        patches = F.pixel_unshuffle(video.transpose(1, 2), 2).permute(0, 1, 3, 4, 2)
        fine = F.gelu(spatial(self.stem, _with_changes(patches, self.config.change_reach)))
        for block in self.fine:
            fine = block(fine)
        x = spatial(self.down, fine)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        features = self.out(self.join(fine + _unfolded(self.up(x))))
        return Maps(
            heat=self.heat(features).squeeze(-1).float(),
            classes=self.classes(features).float(),
            box=self.box(features).float(),
            features=features,
            place=self.place(x),
        )

    def attributes(self, features: Tensor, tracks: Tracks) -> tuple[Tensor, Tensor]:
        """Logits of action [B, S, 12] (the last is none) and colour [B, S, 8] along `tracks`."""
        return self.along(_pooled(features, tracks), tracks)


class _Fine(nn.Module):
    """A residual block of one 3x3 convolution at stride 4 and one over three frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.frames = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.frames(neighbours(F.gelu(spatial(self.conv, self.norm(x)))))


def _with_changes(x: Tensor, reach: int) -> Tensor:
    """[B, F, h, w, D] to [B, F, h, w, 3 D]: each frame with its change from `reach` frames before and to those after.

    A pan moves the scenery by a pixel a frame: it has to be seen before pixels are gathered into places.
    """
    before, now, after = neighbours(x, reach).chunk(3, -1)
    return torch.cat([now, 3 * (now - before), 3 * (after - now)], -1)


def _unfolded(x: Tensor) -> Tensor:
    """[B, F, H, W, 4 D] to [B, F, 2 H, 2 W, D]."""
    b, f, h, w, d = x.shape
    return x.reshape(b, f, h, w, 2, 2, d // 4).permute(0, 1, 2, 4, 3, 5, 6).reshape(b, f, 2 * h, 2 * w, d // 4)
