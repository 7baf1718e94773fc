"""Given weights, seed, steps and sampler, latents and frames are stock diffusers' `WanPipeline`'s. Stays for ever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

from engines import load_engine
from engines.engine import Engine
from tests.engines.making import films, request, stock
from tests.tiny_wan import build_tiny_wan, save_pipeline, save_tiny_wan

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pair:
    """The same weights, in stock diffusers and in ours."""

    pipeline: WanPipeline
    engine: Engine


def make_pair(folder: Path, **form: bool) -> Pair:
    pipeline = build_tiny_wan(seed=7, **form)
    # No card: what stock needs to make a film must be enough for us too.
    return Pair(pipeline, load_engine(save_pipeline(pipeline, folder, card=None)))


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("models") / "wan21")


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("models") / "wan22", two_transformers=True)


@pytest.fixture(scope="module")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("models") / "wan22-5b", expand_timesteps=True)


def set_scheduler(pipeline: WanPipeline, sampler: str, flow_shift: float) -> None:
    pipeline.scheduler = (
        FlowMatchEulerDiscreteScheduler(shift=flow_shift)
        if sampler == "euler"
        else UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)
    )


def compare(pair: Pair, **changes: Any) -> float:
    wanted = request(**changes)
    set_scheduler(pair.pipeline, wanted.sampler, wanted.flow_shift)
    (ours,) = films(pair.engine, wanted)
    latents = stock(pair.pipeline, wanted, "latent")
    assert ours.latents.shape == latents.shape
    assert ours.latents.dtype == np.float32
    return float(np.abs(ours.latents - latents).max())


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.5},
        {"guidance_scale": 7.5, "negative_prompt": ""},
        {"negative_prompt": "low quality, blurry, distorted", "prompt": "  two robots\n dance &amp;amp; fall  "},
        {"prompt": "a cat " * 70, "negative_prompt": "naïve «quotes» 雪 \u200b"},
        {"width": 48, "height": 16, "num_frames": 5},
        {"width": 16, "height": 64, "num_frames": 1},
        {"num_frames": 17, "num_inference_steps": 8, "flow_shift": 5.0, "seed": 2**63 - 1},
        {"num_inference_steps": 1},
        {"num_inference_steps": 2, "flow_shift": 1.0, "seed": 0},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_latents_equal_stock(wan: Pair, sampler: str, changes: dict[str, Any]) -> None:
    """Wan 2.1: every kind of request ends in the stock pipeline's latents."""
    assert compare(wan, sampler=sampler, **changes) < TOLERANCE


def test_a_prompt_longer_than_the_encoder_reads_is_cut_as_stock_cuts_it(wan: Pair) -> None:
    """Past 512 tokens stock truncates and keeps the end token; so do we."""
    long = "red cat grass " * 120
    assert len(wan.pipeline.tokenizer(long).input_ids) > 512
    assert compare(wan, prompt=long, negative_prompt=long) < TOLERANCE


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_two_experts_equal_stock(two_experts: Pair, sampler: str, guidance_scale: float) -> None:
    """Wan 2.2: the high-noise expert hands over to the low-noise one at the same step as in stock."""
    changes = {"sampler": sampler, "guidance_scale": guidance_scale, "num_inference_steps": 6}
    assert compare(two_experts, **changes) < TOLERANCE
    used = {id(two_experts.engine._family._expert(torch.tensor(time))) for time in (950, 100)}
    assert len(used) == 2


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
def test_expand_timesteps_equals_stock(ti2v: Pair, sampler: str) -> None:
    """Wan 2.2's 5B form, where stock gives each token its own time, ends in the same latents with one time for all."""
    changes = {"sampler": sampler, "width": 64, "height": 32, "num_frames": 9, "num_inference_steps": 4}
    assert compare(ti2v, **changes) < TOLERANCE


@pytest.mark.parametrize("form", ["wan", "ti2v"])
def test_frames_equal_stock(form: str, request: pytest.FixtureRequest) -> None:
    """Frames are stock's, rounded to bytes: nowhere more than one level apart, and almost everywhere the same."""
    from tests.engines.making import request as make_request

    pair: Pair = request.getfixturevalue(form)
    wanted = make_request(width=64, height=32, num_inference_steps=4)
    set_scheduler(pair.pipeline, "unipc", wanted.flow_shift)
    (ours,) = films(pair.engine, wanted)
    theirs = (stock(pair.pipeline, wanted, "np") * 255).round()
    assert ours.frames.dtype == np.uint8
    assert ours.frames.shape == (9, 32, 64, 3)
    difference = np.abs(ours.frames - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_stock_loads_what_we_test_with(tmp_path: Path) -> None:
    """The folder is an ordinary diffusers folder: stock, loading it from disk, makes our film."""
    folder = save_tiny_wan(tmp_path / "model", seed=3)
    wanted = request(seed=11)
    (ours,) = films(load_engine(folder), wanted)
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert np.abs(ours.latents - stock(pipeline, wanted, "latent")).max() < TOLERANCE


def test_what_is_asked_for_matters(wan: Pair) -> None:
    """The comparison can fail: another prompt, negative prompt, seed, scale, shift or step count is another film."""
    (plain,) = films(wan.engine, request())
    for change in (
        {"prompt": "a cat"},
        {"negative_prompt": "robots dance"},
        {"seed": 2},
        {"guidance_scale": 6.0},
        {"flow_shift": 5.0},
        {"num_inference_steps": 4},
        {"sampler": "euler"},
    ):
        (other,) = films(wan.engine, request(**change))
        assert np.abs(other.latents - plain.latents).max() > 5 * TOLERANCE, change
