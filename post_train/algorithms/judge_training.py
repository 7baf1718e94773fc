"""Trains a reader on renders whose truth is known, under every disturbance that does not change it.

Legend: B batch, F frames, S object slots.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from post_train.algorithms.judge_losses import TruthBatch, reading_loss
from post_train.algorithms.judge_training_clips import SLOTS, Truth, judge_clip
from post_train.algorithms.judge_training_looks import Looks, disturbed
from post_train.algorithms.judge_training_round_trips import RoundTripConfig, RoundTrips
from post_train.algorithms.vae import clip_tensor
from post_train.muon import Muon
from post_train.precision import Precision, autocast
from post_train.rewards.reader import Reader, ReaderConfig

_HELD_OUT = 3 * 10**9  # first seed of clips that no judge trains on
_SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A size and length of film, and the share of the steps that see it."""

    side: int
    num_frames: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """A judge's network, what it sees and how: steps of `batch` clips of one of `shapes` (the first is the usual)."""

    reader: ReaderConfig
    shapes: tuple[Shape, ...]
    batch: int
    looks: Looks
    round_trips: RoundTripConfig
    weight_decay: float
    data_seed: int


def batch_of(clips: list[tuple[np.ndarray, Truth]]) -> tuple[Tensor, TruthBatch]:
    """Clips and truths as tensors: video [B, 3, F, H, W] in [-1, 1]."""
    video = torch.stack([clip_tensor(frames) for frames, _ in clips])
    truths = [truth for _, truth in clips]
    return video, TruthBatch(
        objects=torch.from_numpy(np.stack([t.objects for t in truths])),
        tracks=torch.from_numpy(np.stack([t.tracks for t in truths])),
        place=torch.from_numpy(np.stack([t.place for t in truths])),
    )


class JudgeTask:
    """One judge's training; `round_trips` may be None, then no clip comes out of a VAE."""

    def __init__(
        self, config: JudgeConfig, round_trips: RoundTrips | None, *, precision: Precision, compile_model: bool = False
    ) -> None:
        self.config, self.round_trips = config, round_trips
        self.precision: Precision = precision
        self.reader = Reader(config.reader)
        self.module: nn.Module = self.reader
        # Only the usual shape is compiled: each of them would take minutes, and the others are seen seldom.
        self._usual: Any = torch.compile(self._through, dynamic=False) if compile_model else self._through

    def _through(self, video: Tensor, objects: Tensor, tracks: Tensor, place: Tensor, noise: Tensor) -> Any:
        return reading_loss(self.reader, video, TruthBatch(objects=objects, tracks=tracks, place=place), noise)

    def optimizer(self, lr: float) -> Optimizer:
        kernels, rest = [], []
        for name, p in self.reader.named_parameters():
            inside = name.startswith(("blocks.", "fine.", "join.", "down.", "up.", "along.frames."))
            (kernels if inside and p.ndim >= 2 and "distance" not in name else rest).append(p)
        groups = [{"params": kernels, "orthogonal": True}, {"params": rest}]
        return Muon(groups, lr=lr, weight_decay=self.config.weight_decay)

    def _shape(self, generator: torch.Generator) -> Shape:
        draw = float(torch.rand((), generator=generator))
        for shape in self.config.shapes[1:]:
            if draw < shape.share:
                return shape
            draw -= shape.share
        return self.config.shapes[0]

    def _clip(self, seed: int, shape: Shape) -> tuple[np.ndarray, Truth]:
        rng = np.random.default_rng((seed, 1))
        looks, usual = self.config.looks, shape == self.config.shapes[0]
        if self.round_trips is not None and usual and rng.random() < looks.round_trips:
            frames, truth = self.round_trips.clip(int(rng.integers(self.config.round_trips.clips)))
        else:
            frames, truth = judge_clip(seed, side=shape.side, num_frames=shape.num_frames)
        return disturbed(rng, frames, looks), truth

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        shape = self._shape(generator)
        first = self.config.data_seed + step * self.config.batch
        video, truth = batch_of([self._clip(first + row, shape) for row in range(self.config.batch)])
        noise = torch.randn(len(video), SLOTS, 5, shape.num_frames, generator=generator)
        with autocast(self.precision):
            through = self._usual if shape == self.config.shapes[0] else self._through
            loss, right = through(video, truth.objects, truth.tracks, truth.place, noise)
        return loss, dict(zip(("class", "action", "colour", "place"), right.tolist(), strict=True))

    @torch.no_grad()
    def sample(self, step: int, folder: Path) -> None:
        """The accuracies on held-out, undisturbed clips, as `judge-<step>.json`."""
        shape = self.config.shapes[0]
        clips = [judge_clip(_HELD_OUT + i, side=shape.side, num_frames=shape.num_frames) for i in range(_SAMPLE)]
        video, truth = batch_of(clips)
        loss, right = reading_loss(self.reader, video, truth, torch.zeros(_SAMPLE, SLOTS, 5, shape.num_frames))
        named = dict(zip(("class", "action", "colour", "place"), right.tolist(), strict=True))
        folder.mkdir(parents=True, exist_ok=True)
        row = json.dumps({"step": step, "loss": float(loss), **named})
        (folder / f"judge-{step:06d}.json").write_text(row + "\n")
