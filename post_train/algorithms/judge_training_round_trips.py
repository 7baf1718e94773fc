"""Training clips that went through a VAE and back, kept on disk under a hash of all that decides them.

Legend: N clips of a shard, F frames, S object slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.operators.whole_clip import channels_last, decode, encode_moments
from engines.whole_writes import appearing_whole
from post_train.algorithms.judge_training_clips import Truth, judge_clip
from post_train.algorithms.vae import clip_tensor
from post_train.data.diorama.world import VERSION
from post_train.data.latents import tensors_digest
from post_train.precision import Precision, autocast

_CODE_VERSION = 1
_SHARD = 64
_BATCH = 4


def vae_digest(vae: AutoencoderKLWan) -> str:
    """A hash of all of a VAE's weights."""
    return tensors_digest(vae.state_dict())[:16]


@torch.inference_mode()
def round_trip(
    vae: AutoencoderKLWan, films: list[NDArray[np.uint8]], *, precision: Precision = "fp32"
) -> list[NDArray[np.uint8]]:
    """Films uint8 [F, H, W, 3], all of one shape, encoded and decoded again."""
    done: list[NDArray[np.uint8]] = []
    for start in range(0, len(films), _BATCH):
        video = torch.stack([clip_tensor(f) for f in films[start : start + _BATCH]])
        with autocast(precision):
            output = decode(vae, encode_moments(vae, video)[0])
        pixels = ((output.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        done.extend(pixels.permute(0, 2, 3, 4, 1).numpy())
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTripConfig:
    """Which clips are sent through: `clips` of them with seeds from `first_seed`."""

    first_seed: int
    clips: int
    side: int
    num_frames: int


class RoundTrips:
    """Clips out of `vae`, made shard by shard when first wanted; `clip(i)` counts round and round."""

    def __init__(self, folder: Path, vae: AutoencoderKLWan, config: RoundTripConfig, *, precision: Precision) -> None:
        self.vae, self.config = channels_last(vae), config
        self.precision: Precision = precision
        facts = (_CODE_VERSION, VERSION, vae_digest(vae), precision, config)
        self.folder = folder / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        self._open: dict[int, dict[str, Tensor]] = {}

    @property
    def shards(self) -> int:
        return -(-self.config.clips // _SHARD)

    def build_all(self, report: Callable[[str], None]) -> None:
        """Makes every shard that is not there yet."""
        for index in range(self.shards):
            if not self._path(index).is_file():
                self._build(index)
                report(f"VAE round trips: shard {index + 1} of {self.shards}")

    def clip(self, index: int) -> tuple[NDArray[np.uint8], Truth]:
        """Frames uint8 [F, side, side, 3] and truth."""
        shard, row = divmod(index % (self.shards * _SHARD), _SHARD)
        if shard not in self._open:
            if not self._path(shard).is_file():
                self._build(shard)
            self._open[shard] = load_file(self._path(shard))
        group = self._open[shard]
        truth = Truth(**{name: group[name][row].numpy() for name in ("objects", "tracks", "place")})
        return group["frames"][row].numpy(), truth

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:04d}.safetensors"

    def _build(self, index: int) -> None:
        cfg = self.config
        seeds = range(cfg.first_seed + index * _SHARD, cfg.first_seed + (index + 1) * _SHARD)
        clips = [judge_clip(s, side=cfg.side, num_frames=cfg.num_frames) for s in seeds]
        frames = round_trip(self.vae, [c[0] for c in clips], precision=self.precision)
        group = {
            "frames": np.stack(frames),
            "objects": np.stack([c[1].objects for c in clips]),
            "tracks": np.stack([c[1].tracks for c in clips]),
            "place": np.stack([c[1].place for c in clips]),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with appearing_whole(self._path(index)) as part:
            save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in group.items()}, part)
