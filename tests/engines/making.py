"""Requests, films and stock films for the engine's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray

from engines.engine import Engine
from engines.types import GenerationRequest, GenerationResult, VideoSpec


def request(request_id: str = "film", **changes: Any) -> GenerationRequest:
    """A small guided request; `changes` may name fields of the request and of its spec."""
    spec = {"width": 32, "height": 32, "num_frames": 9, "fps": 8}
    spec |= {name: changes.pop(name) for name in list(changes) if name in spec}
    fields: dict[str, Any] = {
        "prompt": "a red ball rolls over a grassy meadow",
        "negative_prompt": "blurry",
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "flow_shift": 3.0,
        "sampler": "unipc",
        "seed": 1,
    }
    return GenerationRequest(request_id=request_id, spec=VideoSpec(**spec), **(fields | changes))


def films(engine: Engine, *requests: GenerationRequest) -> list[GenerationResult]:
    """The results of one batch, in the order of the requests."""
    return [event for event in engine.generate(requests) if isinstance(event, GenerationResult)]


def stock(pipeline: WanPipeline, wanted: GenerationRequest, output_type: str) -> NDArray[np.float32]:
    """What the stock pipeline makes of a request: latents [C, T, h, w] or frames in 0 to 1 [F, H, W, 3]."""
    made = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        width=wanted.spec.width,
        height=wanted.spec.height,
        num_frames=wanted.spec.num_frames,
        num_inference_steps=wanted.num_inference_steps,
        guidance_scale=wanted.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(wanted.seed),
        output_type=output_type,
    ).frames[0]
    return np.asarray(made, dtype=np.float32)
