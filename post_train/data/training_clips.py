"""The prepared data of a run: which latents and captions there are, and which of them each step sees.

The clips of a step are a function of (seed, step) alone, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from engines.families.wan import Wan
from engines.types import VideoSpec
from post_train.data.clip_latents import ClipLatents
from post_train.data.clips import ClipSource
from post_train.data.embeddings import PromptEmbeddings
from post_train.distributed import Ranks
from post_train.random_numbers import generator_of

_REPORT_EVERY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingClip:
    """One prepared clip: where its latents are, what is told of it, and how often it is drawn beside the others."""

    latents: str
    caption: str
    others: tuple[str, ...]
    weight: float


class TrainingClips:
    """Clips in a fixed order. `key` hashes latents, captions and weights: the data version of a run."""

    def __init__(self, clips: tuple[TrainingClip, ...], *, seed: int) -> None:
        if not clips:
            raise ValueError("there is no clip to train on")
        if any(c.weight <= 0 for c in clips):
            raise ValueError("a clip has a weight of zero or less; leave it out instead")
        self.clips, self.seed = clips, seed
        content = [[c.latents, c.caption, *c.others, repr(c.weight)] for c in clips]
        self.key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
        self._order = lru_cache(maxsize=2)(self._order_of)

    def __len__(self) -> int:
        return len(self.clips)

    def rows(self, step: int, batch: int) -> list[int]:
        """The clips of step `step` (counted from 1): `batch` of them, passes over the data following one another."""
        first = (step - 1) * batch
        return [self._order(at // len(self))[at % len(self)] for at in range(first, first + batch)]

    def _order_of(self, epoch: int) -> list[int]:
        return epoch_order([c.weight for c in self.clips], _generator(self.seed, epoch))


def epoch_order(weights: list[float], generator: torch.Generator) -> list[int]:
    """One pass: as many draws as clips, each clip weight / mean(weight) times rounded up or down, shuffled.

    Systematic resampling: with equal weights every clip comes exactly once.
    """
    shares = torch.tensor(weights, dtype=torch.float64)
    ends = torch.cumsum(shares * (len(weights) / shares.sum()), 0)
    points = torch.arange(len(weights), dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)
    picks = torch.searchsorted(ends, points).clamp(max=len(weights) - 1)
    return picks[torch.randperm(len(weights), generator=generator)].tolist()


def _generator(seed: int, epoch: int) -> torch.Generator:
    return generator_of(f"{seed}:epoch:{epoch}")


def prepare_clips(
    source: ClipSource,
    spec: VideoSpec,
    *,
    latents: ClipLatents,
    embeddings: PromptEmbeddings,
    family: Callable[[], Wan],
    seed: int,
    ranks: Ranks,
    report: Callable[[str], None],
) -> TrainingClips:
    """Encodes what is not on disk yet, each rank its share, and gives the whole when all are done.

    `family` is called only when there is something to encode. ClipError names a clip that cannot be trained on.
    """
    clips: list[TrainingClip] = []
    encoded = 0
    for index, clip in enumerate(source):
        if index % ranks.count == ranks.rank:
            made = latents.prepare(clip, spec, family)
            made += embeddings.prepare((clip.caption, *clip.others), family)
            encoded += made > 0
            if made and encoded % _REPORT_EVERY == 0:
                report(f"{encoded} clips encoded")
        clips.append(
            TrainingClip(latents=latents.key(clip, spec), caption=clip.caption, others=clip.others, weight=clip.weight)
        )
    if ranks.first:
        embeddings.prepare([""], family)
    ranks.wait()
    report(f"{len(clips)} clips; {encoded} were encoded now, the others were on disk")
    return TrainingClips(tuple(clips), seed=seed)
