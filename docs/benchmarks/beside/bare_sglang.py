"""Their engine without their server: stock diffusers, called as their back end does, and their own writer of films."""

from __future__ import annotations

import sys

import torch
from diffusers import WanPipeline
from sglang.multimodal_gen.configs.sample.sampling_params import DataType
from sglang.multimodal_gen.runtime.entrypoints.utils import materialize_output_sample, save_materialized_output

from beside.bare import serve
from beside.film import FPS, FRAMES, GUIDANCE, NEGATIVE_PROMPT, PROMPT, SIDE


def main(model: str, film: str) -> None:
    """Serve films of `model`, each written to `film`."""
    pipeline = WanPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def make_film(steps: int, seed: int) -> None:
        with torch.no_grad():
            output = pipeline(
                prompt=PROMPT,
                negative_prompt=NEGATIVE_PROMPT,
                width=SIDE,
                height=SIDE,
                num_frames=FRAMES,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="pt",
            )
        sample = output.frames[0].permute(1, 0, 2, 3)
        save_materialized_output(materialize_output_sample(sample, DataType.VIDEO, FPS), DataType.VIDEO, film)

    serve(make_film)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
