"""Latents of training clips, computed once by a frozen VAE and kept on disk under a hash of all that decides them.

Legend: C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor

from engines.families.wan import Wan
from engines.operators.whole_clip import encode_moments
from engines.types import VideoSpec
from post_train.algorithms.vae import clip_tensor
from post_train.data.clips import SourceClip
from post_train.data.decoding import ClipError
from post_train.data.keyed_files import KeyedFiles
from post_train.keys import key_of
from post_train.model_parts import ModelDigests

# Counts up whenever the same clip would get other latents.
CODE_VERSION = 1
# Clips up to so many pixels are encoded in one pass; larger ones in diffusers' chunks of frames, for want of memory.
_ONE_PASS_PIXELS = 128 * 128 * 33


def latents_key(clip: str, spec: VideoSpec, digests: ModelDigests, *, code: int = CODE_VERSION) -> str:
    """What latents are kept under: the clip's digest, its geometry, every part of the model, and the code's version.

    The transformer and the text encoder do not decide them, but a cache that two models share has cost others more
    (channels of another model's latents) than encoding twice costs.
    """
    return key_of(
        {
            "kind": "latents",
            "clip": clip,
            "width": spec.width,
            "height": spec.height,
            "num_frames": spec.num_frames,
            "fps": spec.fps,
            "model": digests.transformer,
            "vae": digests.vae,
            "text_encoder": digests.text_encoder,
            "code": code,
        }
    )


@dataclass(frozen=True, slots=True)
class ClipLatents:
    """Raw (not yet normalised) latents fp16 [C, T, H, W] of clips, under `root`."""

    root: Path
    digests: ModelDigests

    @property
    def _files(self) -> KeyedFiles:
        return KeyedFiles(self.root / "latents")

    def key(self, clip: SourceClip, spec: VideoSpec) -> str:
        """The name of a clip's latents."""
        return latents_key(clip.digest, spec, self.digests)

    def prepare(self, clip: SourceClip, spec: VideoSpec, family: Callable[[], Wan]) -> bool:
        """Encodes `clip` unless it is on disk, and tells whether it had to. ClipError names a clip that cannot be."""
        key = self.key(clip, spec)
        if key in self._files:
            return False
        frames = clip.frames(spec)
        if frames.shape != (spec.num_frames, spec.height, spec.width, 3):
            raise ClipError(clip.name, f"its frames are {frames.shape}, not those of {spec}")
        wan = family()
        latents = encode_frames(wan.parts.vae, frames, wan.device)
        if not bool(torch.isfinite(latents).all()):
            raise ClipError(clip.name, "its latents are not finite in fp16; is this the VAE of the model?")
        self._files.write(key, {"latents": latents})
        return True

    def read(self, key: str) -> Tensor:
        """The latents fp16 [C, T, H, W] under a key."""
        return self._files.read(key)["latents"]


@torch.no_grad()
def encode_frames(vae: AutoencoderKLWan, frames: NDArray, device: torch.device) -> Tensor:
    """The mean of the latents of frames uint8 [F, H, W, 3], fp16 [C, T, h, w] on the CPU."""
    video = clip_tensor(frames)[None].to(device)
    if video[0, 0].numel() <= _ONE_PASS_PIXELS:
        mean = encode_moments(vae, video)[0]
    else:
        encoded = vae.encode(video, return_dict=False)[0]
        mean = encoded.mode()
    return mean[0].half().cpu().contiguous()
