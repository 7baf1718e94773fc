"""Trains the Wan VAE of a small model from nothing on Diorama clips.

Legend: B batch, F pixel frames, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn
from torch.optim import Optimizer

from engines.operators.whole_clip import channels_last, decode, encode_moments
from post_train.data.diorama.record import Clip, Split
from post_train.data.diorama.world import make_clip
from post_train.muon import Muon
from post_train.precision import Precision, autocast

_HELD_OUT = 10**9  # first seed of clips that no run trains on


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """The VAE's shape and its objective: charbonnier + `kl` * KL to N(0, 1), on random crops of `crop` pixels.

    The charbonnier turns from squares to absolute values at errors of `knee` (pixels reach from -1 to 1): wide enough
    that edges, where errors are large, count more than the last bit of a plain sky.

    `object_share` of the crops lie around an object: scenery alone teaches little and fills most of a picture.

    The last `whole_share` of the steps see whole frames, so that the padding at the picture's edge is learnt too.
    """

    model: dict[str, Any]
    side: int
    num_frames: int
    crop: int
    crop_batch: int
    whole_batch: int
    whole_share: float
    object_share: float
    knee: float
    kl: float
    weight_decay: float
    data_seed: int
    frozen_encoder: bool


def clip_tensor(frames: np.ndarray) -> Tensor:
    """uint8 [F, S, S, 3] to float [3, F, S, S] in [-1, 1]."""
    return clip_tensors(torch.from_numpy(frames)[None])[0]


def clip_tensors(frames: Tensor) -> Tensor:
    """uint8 [N, F, S, S, 3] to float [N, 3, F, S, S] in [-1, 1], on the same device."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _psnr(output: Tensor, video: Tensor) -> Tensor:
    """Each clip's PSNR in dB [B], over all of its pixels in [-1, 1]."""
    return 10 * torch.log10(4 / (output - video).square().flatten(1).mean(1))


class VaeTask:
    """Reconstruction of half clean, half wild clips; each step's clips are a function of its number."""

    def __init__(
        self, config: VaeConfig, *, total_steps: int, precision: Precision, compile_model: bool = False
    ) -> None:
        self.config, self.total_steps = config, total_steps
        self.precision: Precision = precision
        self.vae = channels_last(AutoencoderKLWan(**config.model))
        self._start_nearly_noiseless()
        self._through = torch.compile(self._reconstruct, dynamic=False) if compile_model else self._reconstruct
        if config.frozen_encoder:
            self.vae.encoder.requires_grad_(requires_grad=False)
            self.vae.quant_conv.requires_grad_(requires_grad=False)
        self.module: nn.Module = self.vae

    @torch.no_grad()
    def _start_nearly_noiseless(self) -> None:
        """Posterior noise far below the signal: from unit noise, thousands of steps go into learning to outshout it."""
        channels = self.config.model["z_dim"]
        assert self.vae.quant_conv.bias is not None
        self.vae.quant_conv.weight[channels:] *= 0.1
        self.vae.quant_conv.bias[channels:] = -6.0

    def optimizer(self, lr: float) -> Optimizer:
        kernels, rest = [], []
        for name, p in self.vae.named_parameters():
            if p.requires_grad:
                hidden = p.ndim >= 4 and min(p.shape[0], p[0].numel()) > 1 and "conv_in" not in name
                (kernels if hidden else rest).append(p)
        groups = [{"params": kernels, "orthogonal": True}, {"params": rest}]
        return Muon(groups, lr=lr, weight_decay=self.config.weight_decay)

    def _batch(self, step: int, generator: torch.Generator) -> Tensor:
        cfg = self.config
        whole = step > self.total_steps * (1 - cfg.whole_share)
        count, side = (cfg.whole_batch, cfg.side) if whole else (cfg.crop_batch, cfg.crop)
        clips = []
        for row in range(count):
            seed = cfg.data_seed + step * max(cfg.crop_batch, cfg.whole_batch) + row
            split = Split.WILD if row % 2 else Split.CLEAN
            clip = make_clip(seed, side=cfg.side, num_frames=cfg.num_frames, split=split)
            top, left = self._corner(clip, side, generator)
            clips.append(clip_tensor(clip.frames[:, top : top + side, left : left + side]))
        return torch.stack(clips)

    def _corner(self, clip: Clip, side: int, generator: torch.Generator) -> tuple[int, int]:
        """Top and left of a crop: mostly around one of the clip's objects at one of its frames, else anywhere."""
        room = self.config.side - side
        anywhere = torch.randint(0, room + 1, (2,), generator=generator).tolist()
        draw, which, when = torch.rand(3, generator=generator).tolist()
        if room == 0 or draw >= self.config.object_share:
            return anywhere[0], anywhere[1]
        track = clip.scene.objects[int(which * len(clip.scene.objects))].track
        frame = int(when * len(track.x))
        x, y = (float(v[frame]) * self.config.side - side / 2 for v in (track.x, track.y))
        return min(room, max(0, round(y))), min(room, max(0, round(x)))

    def _latents_shape(self, video: Tensor) -> tuple[int, ...]:
        """[B, C, T, h, w] of the latents of `video` [B, 3, F, H, W]."""
        model = self.config.model
        temporal, spatial = model["scale_factor_temporal"], model["scale_factor_spatial"]
        b, _, f, h, w = video.shape
        return b, model["z_dim"], (f - 1) // temporal + 1, h // spatial, w // spatial

    def _reconstruct(self, video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = encode_moments(self.vae, video)
        return mean, log_variance, decode(self.vae, mean + noise * torch.exp(0.5 * log_variance))

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        video = self._batch(step, generator)
        with autocast(self.precision):
            mean, log_variance, output = self._through(
                video, torch.randn(self._latents_shape(video), generator=generator)
            )
        mean, log_variance, output = mean.float(), log_variance.float(), output.float()
        error = output - video
        knee = self.config.knee
        charbonnier = ((error.square() + knee**2).sqrt() - knee).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        psnr = _psnr(output.detach(), video).mean()
        return charbonnier + self.config.kl * kl, {"psnr": float(psnr), "kl": float(kl.detach())}

    @torch.no_grad()
    def sample(self, step: int, folder: Path) -> None:
        """Held-out clips above their reconstructions, and their mean PSNR in the file's name."""
        side, num_frames = self.config.side, self.config.num_frames
        clips = [make_clip(_HELD_OUT + i, side=side, num_frames=num_frames) for i in range(8)]
        video = torch.stack([clip_tensor(c.frames) for c in clips])
        output = decode(self.vae, encode_moments(self.vae, video)[0]).clamp(-1, 1)
        psnr = float(_psnr(output, video).mean())
        rows = torch.cat([video[:, :, ::4], output[:, :, ::4]], dim=3)
        picture = ((rows.permute(0, 3, 2, 4, 1).flatten(2, 3) + 1) * 127.5).round().byte().flatten(0, 1).numpy()
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"vae-{step:06d}-{psnr:.2f}dB.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
