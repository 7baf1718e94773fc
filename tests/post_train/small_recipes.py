"""The recipes of the built-in model cut down to what a test can train in seconds; the code they run is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from post_train.recipes import diorama_base, diorama_vae
from post_train.recipes.diorama_base import BaseRecipe
from post_train.recipes.diorama_vae import VaeRecipe
from post_train.runs import RunOptions
from post_train.small_wan import TextEncoderConfig, TransformerConfig


def small_vae() -> VaeRecipe:
    """Eight steps of an eight-channel VAE."""
    full = diorama_vae.recipe()
    return replace(
        full,
        loop=replace(full.loop, steps=8, warmup_steps=2, sample_every=1000, log_every=4),
        vae=replace(
            full.vae,
            model={**full.vae.model, "base_dim": 8, "z_dim": 8, "latents_mean": [0.0] * 8, "latents_std": [1.0] * 8},
            side=32,
            num_frames=9,
            crop=16,
            crop_batch=2,
            whole_batch=1,
        ),
    )


def small_base() -> BaseRecipe:
    """Twelve steps of a two-layer transformer on two shards of sixteen clips."""
    full = diorama_base.recipe()
    return replace(
        full,
        loop=replace(full.loop, steps=12, warmup_steps=2, sample_every=1000, log_every=4),
        base=replace(
            full.base,
            text_encoder=TextEncoderConfig(vocabulary=512, width=32, head_width=8, heads=2, feed_forward=48, layers=1),
            transformer=TransformerConfig(channels=8, heads=2, head_width=24, feed_forward=64, layers=2, text_width=32),
            latents=replace(full.base.latents, side=32, num_frames=9, shard_clips=16, shards=2),
            batch=4,
            text_tokens=60,
        ),
        tokenizer_clips=60,
        card=replace(
            full.card,
            defaults=replace(full.card.defaults, width=32, height=32, num_frames=9, num_inference_steps=3),
        ),
    )


def options(folder: Path) -> RunOptions:
    """fp32, not compiled, without a limit of time."""
    return RunOptions(folder=folder, precision="fp32", compile_model=False, minutes=10)
