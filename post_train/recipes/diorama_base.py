"""The built-in model's base: an 11.6M transformer and a 1.5M text encoder on the wild split of the Diorama world."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.card import CardDefaults, CardLimits, ModelCard
from post_train.algorithms.base_training import BaseConfig
from post_train.data.diorama.record import Split
from post_train.data.latents import LatentsConfig
from post_train.small_wan import TextEncoderConfig, TransformerConfig
from post_train.trainer import LoopConfig

TEXT_WIDTH = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecipe:
    """A whole base run; `tokenizer_clips` wild clips' captions train the tokenizer."""

    loop: LoopConfig
    base: BaseConfig
    tokenizer_clips: int
    card: ModelCard


def card() -> ModelCard:
    """What the built-in model is for."""
    return ModelCard(
        name="diorama",
        family="wan",
        description="A small Wan trained from nothing on the Diorama world: toys, animals, vehicles on simple grounds.",
        defaults=CardDefaults(
            width=64,
            height=64,
            num_frames=17,
            fps=8,
            num_inference_steps=20,
            guidance_scale=4.0,
            flow_shift=3.0,
            sampler="unipc",
        ),
        limits=CardLimits(
            spatial_multiple=16,
            temporal_multiple=4,
            min_width=32,
            max_width=256,
            min_height=32,
            max_height=256,
            min_frames=1,
            max_frames=81,
            min_fps=1,
            max_fps=60,
            max_steps=100,
            max_guidance_scale=20.0,
            max_flow_shift=20.0,
            max_prompt_chars=2000,
            max_work=64 * 64 * 17 * 20 * 64,
        ),
    )


def recipe() -> BaseRecipe:
    """About eight hours on one core with bf16 matrix units: 16,000 steps of 48 clips, resumed as often as it takes."""
    return BaseRecipe(
        loop=LoopConfig(
            seed=21,
            steps=16_000,
            # At a constant 2e-3 the weights' loss stood 0.022 above their average's (0.359, 0.337; 480 held-out clips).
            lr=1.2e-3,
            warmup_steps=200,
            decay_steps=12_000,
            final_lr=0.02,
            grad_clip=1.0,
            ema_decay=0.999,
            checkpoint_minutes=4,
            sample_every=500,
            log_every=50,
        ),
        base=BaseConfig(
            text_encoder=TextEncoderConfig(
                vocabulary=1024, width=TEXT_WIDTH, head_width=32, heads=6, feed_forward=512, layers=3
            ),
            transformer=TransformerConfig(
                channels=48, heads=4, head_width=72, feed_forward=1152, layers=8, text_width=TEXT_WIDTH
            ),
            latents=LatentsConfig(
                split=Split.WILD, side=64, num_frames=17, first_seed=100_000_000, shard_clips=2048, shards=96
            ),
            # Encoding a clip costs half of what learning from it does.
            visits=4,
            ready=0,
            batch=48,
            text_tokens=47,
            flow_shift=3.0,
            short_share=0.15,
            empty_share=0.1,
            weight_decay=0.02,
            gain_power=1.0,
        ),
        tokenizer_clips=6000,
        card=card(),
    )


def gpu_recipe() -> BaseRecipe:
    """The same model on one GPU: 24,000 steps of 256 clips, which at the pace below would be 20 to 24 minutes.

    Seen on an H100, once: 0.05 to 0.06 s a step when the latents were made, 0.12 s beside their making, which 14
    processes on 16 cores did in three minutes (524,288 clips).
    """
    core = recipe()
    return replace(
        core,
        loop=replace(
            core.loop,
            steps=24_000,
            lr=2e-3,
            warmup_steps=300,
            decay_steps=18_000,
            # Its films are drawn where it is exported: they would take a GPU as long as thousands of steps.
            sample_every=1_000_000,
            log_every=100,
        ),
        # It learns from 5,000 clips a second where 16 cores render 2,700, after a minute in which it is compiled.
        base=replace(core.base, batch=256, visits=4, ready=24, latents=replace(core.base.latents, shards=256)),
    )
