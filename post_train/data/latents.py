"""Latents of Diorama clips on disk, in shards named by a hash of all that decides them, so a stale one is never read.

Legend: N clips of a shard, C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engines.operators.whole_clip import channels_last, encode_moments
from engines.whole_writes import appearing_whole, write_whole
from post_train.algorithms.vae import clip_tensor, clip_tensors
from post_train.data.diorama.record import Split
from post_train.data.diorama.world import VERSION, make_clip
from post_train.data.rendering import Shots, rendered
from post_train.keys import key_of
from post_train.precision import CPU, Precision, autocast

_CODE_VERSION = 1
_BATCH = 8
_ACCELERATOR_BATCH = 64
_LOOK_AGAIN_SECONDS = 0.1
_STATISTICS_SEED = 5 * 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsConfig:
    """Which clips are encoded: seeds from `first_seed` on, `shards` shards of `shard_clips` each."""

    split: Split
    side: int
    num_frames: int
    first_seed: int
    shard_clips: int
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Raw (not yet normalised) latents fp16 [N, C, T, H, W], and each clip's full and short caption."""

    latents: Tensor
    full: list[str]
    short: list[str]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors by their values in fp32, in whatever order and memory layout they come."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_digest(vae: AutoencoderKLWan) -> str:
    """A hash of the encoder's weights: the decoder may improve without making cached latents stale."""
    return tensors_digest({k: v for k, v in vae.state_dict().items() if k.startswith(("encoder.", "quant_conv."))})


class LatentCache:
    """Shards under one folder; a shard that is missing is made when it is asked for.

    Clips are rendered by `workers` processes (0: by this one) and encoded on `device`. With `made_beside` another
    process makes the shards, and who asks for a missing one waits for it.
    The precision is not part of the key: bf16 moved a latent by 0.004 to 0.006, where latents deviate by 0.63.
    """

    def __init__(
        self,
        root: Path,
        vae: AutoencoderKLWan,
        config: LatentsConfig,
        *,
        precision: Precision = "fp32",
        compile_model: bool = False,
        device: torch.device = CPU,
        workers: int = 0,
        made_beside: bool = False,
    ) -> None:
        self.vae, self.config = channels_last(vae), config
        self._precision: Precision = precision
        self._device, self._workers, self._made_beside = device, workers, made_beside
        self._moments = torch.compile(encode_moments, dynamic=False) if compile_model else encode_moments
        # The number of shards is left out: a cache may grow without losing what it has.
        facts = {k: v for k, v in asdict(config).items() if k != "shards"}
        facts |= {"vae": weights_digest(vae), "world": VERSION, "code": _CODE_VERSION}
        self.key = key_of(facts)[:20]
        self.folder = root / self.key
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))

    def __contains__(self, index: int) -> bool:
        return self._path(index).exists()

    def shard(self, index: int) -> Shard:
        """Shard `index`, encoded now if it is not on disk (or waited for, when another process makes it)."""
        if not 0 <= index < self.config.shards:
            raise ValueError(f"shard {index} is not one of the {self.config.shards} shards of this cache")
        while self._made_beside and index not in self:
            time.sleep(_LOOK_AGAIN_SECONDS)
        if index not in self:
            self._build([index])
        texts = json.loads(self._path(index).with_suffix(".json").read_text())
        return Shard(latents=load_file(self._path(index))["latents"], full=texts["full"], short=texts["short"])

    def build_all(self, report: Callable[[str], None]) -> None:
        """Makes every shard that is missing, in order; a training run beside it reads each as it comes."""
        self._build([i for i in range(self.config.shards) if i not in self], report)

    def _build(self, indices: Sequence[int], report: Callable[[str], None] = lambda _: None) -> None:
        """Renders and encodes shards and writes each atomically, the tensors last."""
        _move(self.vae, self._device)
        clips = rendered((some for i in indices for some in self._shots(i)), workers=self._workers)
        for index in indices:
            latents, full, short = [], [], []
            for some in islice(clips, len(self._shots(index))):
                full += some.full
                short += some.short
                latents.append(self._encode(some.frames))
            path = self._path(index)
            write_whole(path.with_suffix(".json"), json.dumps({"full": full, "short": short}).encode())
            with appearing_whole(path) as part:
                save_file({"latents": torch.cat(latents).contiguous()}, part)
            report(f"shard {index + 1} of {self.config.shards}")

    def _shots(self, index: int) -> list[Shots]:
        """The clips of shard `index`, in parts that are encoded at once."""
        c = self.config
        first = c.first_seed + index * c.shard_clips
        batch = _BATCH if self._device.type == "cpu" else _ACCELERATOR_BATCH
        parts = (range(s, min(s + batch, first + c.shard_clips)) for s in range(first, first + c.shard_clips, batch))
        return [Shots(seeds=seeds, split=c.split, side=c.side, num_frames=c.num_frames) for seeds in parts]

    @torch.no_grad()
    def _encode(self, frames: NDArray[np.uint8]) -> Tensor:
        """The latents fp16 [N, C, T, H, W] of frames uint8 [N, F, S, S, 3], on the CPU."""
        video = clip_tensors(torch.from_numpy(frames).to(self._device))
        with autocast(self._precision, self._device.type):
            return self._moments(self.vae, video)[0].half().cpu()

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


def _move(module: nn.Module, device: torch.device) -> None:
    module.to(device)


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, *, side: int, num_frames: int, clips: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over clean clips, both [C]: what a pipeline normalises by."""
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for start in range(0, clips, _BATCH):
        seeds = range(_STATISTICS_SEED + start, _STATISTICS_SEED + start + _BATCH)
        frames = [make_clip(s, side=side, num_frames=num_frames).frames for s in seeds]
        video = torch.stack([clip_tensor(f) for f in frames])
        latents = encode_moments(vae, video)[0].double()
        total = total + latents.sum(dim=(0, 2, 3, 4))
        squares = squares + latents.square().sum(dim=(0, 2, 3, 4))
        count += latents.numel() // latents.shape[1]
    mean = total / count
    return mean.float(), (squares / count - mean.square()).sqrt().float()
