"""The shipped weights: what they are, and that stock diffusers makes the very films that we do."""

from __future__ import annotations

import json

import numpy as np
import torch
from diffusers import WanPipeline
from safetensors import safe_open

from engines.card import read_card
from engines.catalog import find_model
from engines.engine import load_engine
from engines.types import GenerationRequest, GenerationResult, VideoSpec

FOLDER = find_model("diorama")
PROMPT = "A cat walks to the left on a grassy meadow under a clear blue sky."


def _parameters(part: str) -> int:
    total = 0
    for path in (FOLDER / part).glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            total += sum(int(np.prod(weights.get_slice(k).get_shape())) for k in weights.keys())  # noqa: SIM118
    return total


def test_the_transformer_is_small() -> None:
    """At most twelve million weights."""
    assert 5_000_000 < _parameters("transformer") <= 12_000_000


def test_the_manifest_tells_the_weights_origin() -> None:
    """Recipe, data and how much was seen are on record, and the card is the model's own."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["clips_seen"] > 10_000
    assert read_card(FOLDER).name == "diorama"


def test_stock_diffusers_makes_the_same_film() -> None:
    """Called with nothing but the card's own numbers, WanPipeline gives our latents and our frames."""
    d = read_card(FOLDER).defaults
    pipeline = WanPipeline.from_pretrained(FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    common = {
        "prompt": PROMPT,
        "width": d.width,
        "height": d.height,
        "num_frames": d.num_frames,
        "num_inference_steps": 6,
        "guidance_scale": d.guidance_scale,
    }
    stock = [
        pipeline(**common, generator=torch.Generator("cpu").manual_seed(3), output_type=kind).frames[0]
        for kind in ("latent", "np")
    ]
    request = GenerationRequest(
        request_id="film",
        prompt=PROMPT,
        spec=VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps),
        num_inference_steps=6,
        guidance_scale=d.guidance_scale,
        flow_shift=d.flow_shift,
        sampler=d.sampler,
        seed=3,
    )
    (ours,) = (e for e in load_engine("diorama").generate([request]) if isinstance(e, GenerationResult))
    assert np.abs(ours.latents - stock[0].float().numpy()).max() < 1e-4
    assert np.abs(ours.frames / 255 - stock[1]).max() < 2 / 255
