"""The built-in model's VAE: Wan's 8x8x4 geometry with 48 latent channels, 2.9M weights and the shortcuts of Wan 2.2."""

from __future__ import annotations

from dataclasses import dataclass, replace

from post_train.algorithms.vae import VaeConfig
from post_train.trainer import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeRecipe:
    """A whole VAE run."""

    loop: LoopConfig
    vae: VaeConfig


def recipe() -> VaeRecipe:
    """About forty minutes, compiled, on one core with bf16 matrix units."""
    return VaeRecipe(
        loop=LoopConfig(
            seed=22,
            steps=5600,
            lr=2.5e-3,
            warmup_steps=60,
            decay_steps=5540,
            final_lr=0.02,
            grad_clip=1.0,
            ema_decay=0.997,
            checkpoint_minutes=4,
            sample_every=400,
            log_every=50,
        ),
        vae=VaeConfig(
            model={
                "base_dim": 32,
                "decoder_base_dim": None,
                "z_dim": 48,
                "dim_mult": [1, 2, 2],
                "num_res_blocks": 1,
                "attn_scales": [],
                "temperal_downsample": [True, True],
                "in_channels": 12,
                "out_channels": 12,
                "patch_size": 2,
                "is_residual": True,
                "scale_factor_temporal": 4,
                "scale_factor_spatial": 8,
                "latents_mean": [0.0] * 48,
                "latents_std": [1.0] * 48,
            },
            side=64,
            num_frames=17,
            crop=32,
            crop_batch=8,
            whole_batch=2,
            whole_share=0.25,
            object_share=0.6,
            knee=0.1,
            kl=1e-4,
            weight_decay=1e-2,
            data_seed=20_000_000,
            frozen_encoder=False,
        ),
    )


def decoder_recipe() -> VaeRecipe:
    """A decoder of twice the width for the finished encoder, whose latents, and so every base, stay as they are.

    It starts from the finished VAE, widened: `rushes train diorama-decoder`.
    """
    whole = recipe()
    return replace(
        whole,
        loop=replace(whole.loop, seed=23, steps=4000, decay_steps=3940, lr=2e-3),
        vae=replace(
            whole.vae, model={**whole.vae.model, "decoder_base_dim": 64}, frozen_encoder=True, data_seed=30_000_000
        ),
    )
