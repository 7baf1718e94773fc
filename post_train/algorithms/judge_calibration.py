"""Fits a judge's temperatures, so that what it is 90 % sure of is true nine times in ten.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599: one temperature a head, by log-likelihood on
clips that were not trained on. Legend: B batch, F frames, S object slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from post_train.algorithms.judge_losses import TruthBatch, own_tracks
from post_train.rewards.reader import PLACE, Maps, Reader
from post_train.rewards.reader_tracks import FoundObject, tracks

_TEMPERATURES = np.exp(np.linspace(np.log(0.4), np.log(4.0), 47))
_SHIFTS = np.linspace(-3, 3, 49)
_ENOUGH = 1 / 3  # of the frames: what is shown on fewer is not held to be there


def _best(logits: list[Tensor], answers: list[Tensor]) -> float:
    """The temperature of the least cross-entropy over logits [N, n] and answers [N]; 1 where nothing is known."""
    every, right = torch.cat(logits), torch.cat(answers)
    if not len(right):
        return 1.0
    costs = [float(F.cross_entropy(every / t, right)) for t in _TEMPERATURES.tolist()]
    return float(_TEMPERATURES[int(np.argmin(costs))])


@torch.inference_mode()
def temperatures(reader: Reader, batches: Iterable[tuple[Tensor, TruthBatch]]) -> dict[str, float]:
    """The temperature of each head, from (video [B, 3, F, H, W], truth) batches.

    `there` and `there_shift` are those of an object's confidence: its logit is divided by the one, and the other added.
    """
    sure: list[tuple[float, bool]] = []
    logits: dict[str, list[Tensor]] = {}
    answers: dict[str, list[Tensor]] = {}

    def note(head: str, said: Tensor, right: Tensor) -> None:
        known = right >= 0
        logits.setdefault(head, []).append(said[known])
        answers.setdefault(head, []).append(right[known])

    for video, truth in batches:
        maps = reader(video)
        action, colour = reader.attributes(maps.features, own_tracks(maps, truth))
        note("action", action, truth.objects[..., 2])
        note("colour", colour, truth.objects[..., 1])
        for i, name in enumerate(PLACE):
            note(name, maps.place[name], truth.place[:, i])
        note("class", *_at_centres(maps.classes, truth))
        sure.extend(_verdicts(maps, truth))
    scale, shift = _line(sure)
    return {head: _best(logits[head], answers[head]) for head in logits} | {"there": scale, "there_shift": shift}


def _verdicts(maps: Maps, truth: TruthBatch) -> list[tuple[float, bool]]:
    """(confidence, whether it is there) of every object that is found."""
    heat = maps.heat.sigmoid().numpy()
    classes, box = maps.classes.log_softmax(-1).numpy(), maps.box.numpy()
    verdicts: list[tuple[float, bool]] = []
    for film, own in enumerate(truth.tracks.numpy()):
        free = [t for t in own if t[3].mean() >= _ENOUGH]
        for found in tracks(heat[film], classes[film], box[film]):
            hits = [i for i, t in enumerate(free) if _covers(found, t)]
            verdicts.append((found.confidence, bool(hits)))
            if hits:
                del free[hits[0]]
    return verdicts


def _covers(found: FoundObject, track: np.ndarray) -> bool:
    """Whether what was found lies on `track` [4, F] where both are seen."""
    both = (found.track.presence > 0) & (track[3] > 0)
    if not both.any():
        return False
    away = np.hypot(found.track.x - track[0], found.track.y - track[1])[both]
    return bool(np.median(away) < 0.5 * np.median(track[2][both]))


def _line(verdicts: list[tuple[float, bool]]) -> tuple[float, float]:
    """Scale and shift of a confidence's logit that make it the probability of being there.

    (1, 0) unless there are twenty verdicts or more, right and wrong ones among them.
    """
    if len(verdicts) < 20 or len({there for _, there in verdicts}) < 2:
        return 1.0, 0.0
    confidence = np.clip([c for c, _ in verdicts], 1e-4, 1 - 1e-4)
    logit, there = np.log(confidence / (1 - confidence)), np.array([t for _, t in verdicts])
    said = logit / _TEMPERATURES[:, None, None] + _SHIFTS[None, :, None]
    cost = np.logaddexp(0, np.where(there, -said, said)).mean(-1)
    best = np.unravel_index(int(cost.argmin()), cost.shape)
    return float(_TEMPERATURES[best[0]]), float(_SHIFTS[best[1]])


def _at_centres(classes: Tensor, truth: TruthBatch) -> tuple[Tensor, Tensor]:
    """Class logits [N, K] at the objects' centres, and their classes [N], on every fourth frame."""
    _, _, h, w, _ = classes.shape
    b, s, f = torch.nonzero(truth.tracks[:, :, 3] > 0.5, as_tuple=True)
    b, s, f = b[::4], s[::4], f[::4]
    at = truth.tracks[b, s, :, f]
    row, column = (at[:, 1] * h).long().clamp(0, h - 1), (at[:, 0] * w).long().clamp(0, w - 1)
    return classes[b, f, row, column], truth.objects[b, s, 0]
