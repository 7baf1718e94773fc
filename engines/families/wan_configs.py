"""The published Wan text-to-video transformers and VAEs, as diffusers' configs name their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_HEAD = {
    "patch_size": [1, 2, 2],
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}

WAN_2_1_VAE: dict[str, Any] = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
WAN_2_2_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 48,  # sizes matter here; the real figures come with the weights
    "latents_std": [1.0] * 48,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWan:
    """One published model: its transformer's config (both experts have the same) and its VAE's."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    experts: int = 1


PUBLISHED: dict[str, PublishedWan] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": PublishedWan(
        transformer={
            **_HEAD,
            "num_attention_heads": 12,
            "ffn_dim": 8960,
            "num_layers": 30,
            "in_channels": 16,
            "out_channels": 16,
        },
        vae=WAN_2_1_VAE,
    ),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": PublishedWan(
        transformer={
            **_HEAD,
            "num_attention_heads": 40,
            "ffn_dim": 13824,
            "num_layers": 40,
            "in_channels": 16,
            "out_channels": 16,
        },
        vae=WAN_2_1_VAE,
    ),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": PublishedWan(
        transformer={
            **_HEAD,
            "num_attention_heads": 40,
            "ffn_dim": 13824,
            "num_layers": 40,
            "in_channels": 16,
            "out_channels": 16,
        },
        vae=WAN_2_1_VAE,
        experts=2,
    ),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": PublishedWan(
        transformer={
            **_HEAD,
            "num_attention_heads": 24,
            "ffn_dim": 14336,
            "num_layers": 30,
            "in_channels": 48,
            "out_channels": 48,
        },
        vae=WAN_2_2_VAE,
    ),
}
