"""The Diorama world as a source of training clips: any seeds of a split, or a curated list of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.types import VideoSpec
from engines.whole_writes import write_whole
from post_train.data.clips import SourceClip
from post_train.data.decoding import ClipError
from post_train.data.diorama.record import Clip, Split
from post_train.data.diorama.world import VERSION, make_captions, make_clip

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CuratedSeeds:
    """Seeds of a split with a sampling weight each; `how` is JSON on how they were chosen.

    `num_frames` is what they were judged at: a seed's scene depends on its length.
    """

    split: Split
    num_frames: int
    seeds: tuple[int, ...]
    weights: tuple[float, ...]
    how: dict[str, Any]

    def write(self, path: Path) -> None:
        """Writes the list as JSON, whole or not at all."""
        content = {
            "version": _FORMAT,
            "world": VERSION,
            "split": self.split,
            "num_frames": self.num_frames,
            "seeds": self.seeds,
            "weights": [round(w, 6) for w in self.weights],
            "how": self.how,
        }
        write_whole(path, (json.dumps(content, sort_keys=True) + "\n").encode())


def read_curated(path: Path) -> CuratedSeeds:
    """A list that `CuratedSeeds.write` wrote; ClipError when it is none, or of another world."""
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ClipError(str(path), f"it is no list of curated seeds: {error}") from None
    wanted = {"version", "world", "split", "num_frames", "seeds", "weights", "how"}
    if not isinstance(content, dict) or content.keys() != wanted or content["version"] != _FORMAT:
        raise ClipError(str(path), f"it is no list of curated seeds of format {_FORMAT}")
    if content["world"] != VERSION:
        raise ClipError(str(path), f"its seeds are of world {content['world']}, this is world {VERSION}; curate anew")
    seeds, weights = content["seeds"], content["weights"]
    if not seeds or len(seeds) != len(weights) or min(weights) <= 0:
        raise ClipError(str(path), f"{len(seeds)} seeds with {len(weights)} weights; each needs one above zero")
    return CuratedSeeds(
        split=Split(content["split"]),
        num_frames=content["num_frames"],
        seeds=tuple(seeds),
        weights=tuple(weights),
        how=content["how"],
    )


class DioramaClips:
    """Clips of the world by seed. Their full caption is told, their short one is a further caption.

    Square only: `frames(spec)` raises ClipError for another shape, and for another length than they were chosen at.
    """

    def __init__(
        self, seeds: Sequence[int], split: Split, *, num_frames: int, weights: Sequence[float] | None = None
    ) -> None:
        if not seeds:
            raise ClipError("diorama", "no seed was given; a run needs at least one clip")
        self.seeds, self.split, self.num_frames = tuple(seeds), split, num_frames
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.seeds)

    @classmethod
    def curated(cls, path: Path) -> DioramaClips:
        """The clips of a list on disk."""
        chosen = read_curated(path)
        return cls(chosen.seeds, chosen.split, num_frames=chosen.num_frames, weights=chosen.weights)

    def __len__(self) -> int:
        return len(self.seeds)

    def __iter__(self) -> Iterator[SourceClip]:
        for seed, weight in zip(self.seeds, self.weights, strict=True):
            captions = make_captions(seed, num_frames=self.num_frames, split=self.split)
            yield SourceClip(
                name=f"diorama {self.split} {seed}",
                caption=captions.full.text,
                others=(captions.short.text,),
                digest=hashlib.sha256(f"diorama:{VERSION}:{self.split}:{seed}".encode()).hexdigest(),
                frames=_Renderer(self, seed),
                weight=weight,
            )

    def describe(self) -> dict[str, Any]:
        seeds = hashlib.sha256(json.dumps(self.seeds).encode()).hexdigest()[:16]
        return {
            "kind": "diorama",
            "world": VERSION,
            "split": str(self.split),
            "clips": len(self),
            "first_seed": self.seeds[0],
            "seeds": seeds,
        }

    def render(self, seed: int, spec: VideoSpec) -> NDArray[np.uint8]:
        """The frames of `seed`, uint8 [F, S, S, 3]."""
        if spec.width != spec.height:
            raise ClipError(f"diorama {seed}", f"the world is square, {spec.width}x{spec.height} was asked for")
        if spec.num_frames != self.num_frames:
            raise ClipError(
                f"diorama {seed}",
                f"these clips have {self.num_frames} frames, {spec.num_frames} were asked for",
            )
        return self._clip(seed, spec.width).frames

    def _clip(self, seed: int, side: int) -> Clip:
        return make_clip(seed, side=side, num_frames=self.num_frames, split=self.split)


@dataclass(frozen=True, slots=True)
class _Renderer:
    source: DioramaClips
    seed: int

    def __call__(self, spec: VideoSpec) -> NDArray[np.uint8]:
        return self.source.render(self.seed, spec)
