"""Stock diffusers by stages, as its `WanPipeline` goes through them: what our engine is measured beside.

The one file of engines that may import a pipeline of diffusers: it makes no film for anybody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from numpy.typing import NDArray

from engines.components import no_progress_bars
from engines.types import GenerationRequest


class StockWan:
    """A pipeline in fp32 on the CPU, uncompiled, with one request at its stages."""

    def __init__(self, folder: Path, request: GenerationRequest) -> None:
        with no_progress_bars():
            self._pipe: Any = WanPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._pipe.set_progress_bar_config(disable=True)
        self._request = request
        self._texts = self.text()

    @torch.inference_mode()
    def text(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both prompts encoded."""
        return self._pipe.encode_prompt(
            prompt=self._request.prompt,
            negative_prompt=self._request.negative_prompt,
            do_classifier_free_guidance=True,
            device=torch.device("cpu"),
        )

    @torch.inference_mode()
    def step(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        """The first step from noise: two transformer calls, guidance and the scheduler."""
        pipe = self._pipe
        pipe.scheduler.set_timesteps(self._request.num_inference_steps)
        timestep = pipe.scheduler.timesteps[0]
        given, nothing = (
            pipe.transformer(
                hidden_states=noise_BCTHW,
                timestep=timestep.expand(len(noise_BCTHW)),
                encoder_hidden_states=text,
                return_dict=False,
            )[0]
            for text in self._texts
        )
        velocity = nothing + self._request.guidance_scale * (given - nothing)
        return pipe.scheduler.step(velocity, timestep, noise_BCTHW, return_dict=False)[0]

    @torch.inference_mode()
    def decode(self, latents_CTHW: torch.Tensor) -> NDArray[np.float32]:
        """Frames in 0 to 1, [F, H, W, 3]."""
        vae = self._pipe.vae
        mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
        video = vae.decode(latents_CTHW[None] * std + mean, return_dict=False)[0]
        return self._pipe.video_processor.postprocess_video(video, output_type="np")[0]

    def film(self) -> NDArray[np.float32]:
        """Everything, as a user calls it; frames in 0 to 1, [F, H, W, 3]."""
        request = self._request
        return self._pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.spec.width,
            height=request.spec.height,
            num_frames=request.spec.num_frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="np",
        ).frames[0]
