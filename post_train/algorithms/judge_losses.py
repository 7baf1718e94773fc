"""What a reader is trained to say of a clip whose truth is known.

Legend: B batch, F frames, S object slots, h w of the stride-4 map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from post_train.rewards.reader import PLACE, Maps, Reader, Tracks

_UNKNOWN = -1
_OWN = 0.5  # deviations: 69 % of the objects are followed by what the reader says of them


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthBatch:
    """Truths of B clips: `objects` int64 [B, S, 3] (class, colour, action), `tracks` [B, S, 4, F], `place` [B, 5].

    A track is x, y, size and presence; -1 stands for what is not told of.
    """

    objects: Tensor
    tracks: Tensor
    place: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """Per place of the map: `heat` [B, F, h, w], 1 at an object's own; who owns it and what its box would be."""

    heat: Tensor
    names: Tensor
    box: Tensor


def _targets(truth: TruthBatch, h: int, w: int) -> _Targets:
    x, y, size, presence = truth.tracks.unbind(2)
    across, down, extent = x * w, y * h, size * w
    column, row = across.floor().clamp(0, w - 1), down.floor().clamp(0, h - 1)
    columns, rows = torch.arange(w), torch.arange(h)[:, None]
    spread = (extent / 6).clamp(min=0.6)[..., None, None]
    away = (columns - column[..., None, None]).square() + (rows - row[..., None, None]).square()
    near = torch.exp(-away / (2 * spread.square())) * presence[..., None, None]
    heat, owner = near.max(1)
    names = truth.objects[:, :, 0][:, :, None, None, None].expand_as(near).gather(1, owner[:, None])[:, 0]

    def owned(values: Tensor) -> Tensor:
        return values[..., None, None].expand_as(near).gather(1, owner[:, None])[:, 0]

    box = torch.stack([owned(across) - columns - 0.5, owned(down) - rows - 0.5, owned(extent).clamp(min=0.1).log()], -1)
    return _Targets(heat=heat, names=names, box=box)


def _finding(maps: Maps, targets: _Targets) -> tuple[Tensor, Tensor]:
    """CenterNet's focal loss, class and box around each centre; and the share of centres whose class is right."""
    b, f, h, w = maps.heat.shape
    centre = (targets.heat >= 0.999).float()
    count = centre.sum().clamp(min=1)
    p = maps.heat.sigmoid()
    hit = centre * (1 - p).square() * F.logsigmoid(maps.heat)
    miss = (1 - centre) * (1 - targets.heat) ** 4 * p.square() * F.logsigmoid(-maps.heat)
    heat = -(hit + miss).sum() / count
    weight = targets.heat * (targets.heat > 0.3)
    share = weight / weight.sum().clamp(min=1)
    says = F.cross_entropy(maps.classes.flatten(0, 3), targets.names.flatten(), reduction="none").view(b, f, h, w)
    box = (maps.box - targets.box).abs().sum(-1)
    right = ((maps.classes.argmax(-1) == targets.names) * centre).sum() / count
    return heat + ((says + 0.5 * box) * share).sum(), right


def _chosen(logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy over the answers that are known; logits [..., n], answers [...]."""
    known = (answers != _UNKNOWN).float()
    count = known.sum().clamp(min=1)
    safe = answers.clamp(min=0)
    loss = F.cross_entropy(logits.flatten(0, -2), safe.flatten(), reduction="none") * known.flatten()
    return loss.sum() / count, ((logits.argmax(-1) == answers) * known).sum() / count


def jittered(truth: TruthBatch, noise: Tensor) -> Tracks:
    """True tracks, less exactly: `noise` N(0, 1) [B, S, 4, F] moves, scales and loses a few frames."""
    x, y, size, presence = truth.tracks.unbind(2)
    dx, dy, scale, loss = noise.unbind(2)
    return Tracks(
        x=x + 0.012 * dx, y=y + 0.012 * dy, size=size * torch.exp(0.06 * scale), presence=presence * (loss < 1.9)
    )


def own_tracks(maps: Maps, truth: TruthBatch) -> Tracks:
    """What the reader's boxes say at the true centres: what it will follow when nobody tells it the truth.

    Its sizes range less than the true ones do, which is no noise: who has only seen the truth takes a slow growth for
    standing still.
    """
    x, y, _, presence = truth.tracks.unbind(2)
    b, f, h, w = maps.heat.shape
    column, row = (x * w).long().clamp(0, w - 1), (y * h).long().clamp(0, h - 1)
    film, frame = torch.arange(b, device=x.device)[:, None, None], torch.arange(f, device=x.device)
    dx, dy, log_size = maps.box.detach()[film, frame, row, column].unbind(-1)
    return Tracks(
        x=(column + 0.5 + dx) / w, y=(row + 0.5 + dy) / h, size=log_size.clamp(-3, 5).exp() / w, presence=presence
    )


def followed(maps: Maps, truth: TruthBatch, noise: Tensor) -> Tracks:
    """Each object's own track or its jittered true one; `noise` N(0, 1) [B, S, 5, F], its last part decides which."""
    true, own = jittered(truth, noise[:, :, :4]), own_tracks(maps, truth)
    pick = noise[:, :, 4, :1] < _OWN
    return Tracks(
        **{k: torch.where(pick, getattr(own, k), getattr(true, k)) for k in ("x", "y", "size")}, presence=true.presence
    )


def reading_loss(reader: Reader, video: Tensor, truth: TruthBatch, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the accuracies [4]: class, action, colour and the mean of the place's."""
    maps = reader(video)
    heat, named = _finding(maps, _targets(truth, *maps.heat.shape[2:]))
    action, colour = reader.attributes(maps.features, followed(maps, truth, noise))
    acting, acted = _chosen(action, truth.objects[..., 2])
    painting, painted = _chosen(colour, truth.objects[..., 1])
    place = [_chosen(maps.place[name], truth.place[:, i]) for i, name in enumerate(PLACE)]
    loss = heat + acting + 0.5 * painting + torch.stack([p[0] for p in place]).sum()
    return loss, torch.stack([named, acted, painted, torch.stack([p[1] for p in place]).mean()]).detach()
