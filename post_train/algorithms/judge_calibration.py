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

from post_train.algorithms.judge_losses import TruthBatch
from post_train.rewards.reader import PLACE, Reader, Tracks

_TEMPERATURES = np.exp(np.linspace(np.log(0.4), np.log(4.0), 47))


def _best(logits: list[Tensor], answers: list[Tensor]) -> float:
    """The temperature of the least cross-entropy over logits [N, n] and answers [N]; 1 where nothing is known."""
    every, right = torch.cat(logits), torch.cat(answers)
    if not len(right):
        return 1.0
    costs = [float(F.cross_entropy(every / t, right)) for t in _TEMPERATURES.tolist()]
    return float(_TEMPERATURES[int(np.argmin(costs))])


@torch.inference_mode()
def temperatures(reader: Reader, batches: Iterable[tuple[Tensor, TruthBatch]]) -> dict[str, float]:
    """The temperature of each head, from (video [B, 3, F, H, W], truth) batches."""
    logits: dict[str, list[Tensor]] = {}
    answers: dict[str, list[Tensor]] = {}

    def note(head: str, said: Tensor, right: Tensor) -> None:
        known = right >= 0
        logits.setdefault(head, []).append(said[known])
        answers.setdefault(head, []).append(right[known])

    for video, truth in batches:
        maps = reader(video)
        x, y, size, presence = truth.tracks.unbind(2)
        action, colour = reader.attributes(maps.features, Tracks(x=x, y=y, size=size, presence=presence))
        note("action", action, truth.objects[..., 2])
        note("colour", colour, truth.objects[..., 1])
        for i, name in enumerate(PLACE):
            note(name, maps.place[name], truth.place[:, i])
        note("class", *_at_centres(maps.classes, truth))
    return {head: _best(logits[head], answers[head]) for head in logits}


def _at_centres(classes: Tensor, truth: TruthBatch) -> tuple[Tensor, Tensor]:
    """Class logits [N, K] at the objects' centres, and their classes [N], on every fourth frame."""
    _, _, h, w, _ = classes.shape
    b, s, f = torch.nonzero(truth.tracks[:, :, 3] > 0.5, as_tuple=True)
    b, s, f = b[::4], s[::4], f[::4]
    at = truth.tracks[b, s, :, f]
    row, column = (at[:, 1] * h).long().clamp(0, h - 1), (at[:, 0] * w).long().clamp(0, w - 1)
    return classes[b, f, row, column], truth.objects[b, s, 0]
