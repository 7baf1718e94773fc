"""A tiny random Wan saved as an ordinary diffusers folder, so that any test can run the real engine in a second.

By hand: `python -m tests.tiny_wan FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

CARD: dict[str, Any] = {
    "version": 1,
    "name": "tiny-wan",
    "family": "wan",
    "description": "A tiny Wan with random weights, for tests only.",
    "defaults": {
        "width": 32,
        "height": 32,
        "num_frames": 9,
        "fps": 8,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "flow_shift": 3.0,
        "sampler": "unipc",
        "negative_prompt": "",
    },
    "limits": {
        "spatial_multiple": 16,
        "temporal_multiple": 4,
        "min_width": 16,
        "max_width": 96,
        "min_height": 16,
        "max_height": 96,
        "min_frames": 1,
        "max_frames": 33,
        "min_fps": 1,
        "max_fps": 30,
        "max_steps": 50,
        "max_guidance_scale": 20.0,
        "max_flow_shift": 20.0,
        "max_prompt_chars": 500,
        "max_work": 96 * 96 * 33 * 8,
    },
}

_CORPUS = (
    "a small red ball rolls over a grassy meadow under a clear blue sky",
    "a cat walks on grass while the camera pans left",
    "two robots dance at sunset in a snowy field, light rain falls",
    "low quality, blurry, distorted",
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Train a small Unigram tokenizer in this process; like UMT5's it ends every text with </s> and pads with <pad>."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(list(_CORPUS) * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def tiny_transformer(*, in_channels: int = 16) -> WanTransformer3DModel:
    """A transformer of two blocks and 24 channels, with the parts of the published ones.

    Its feed-forward width fills no vector evenly, so that what depends on a row's place in the batch is seen to.
    """
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=in_channels,
        text_dim=32,
        freq_dim=64,
        ffn_dim=37,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    ).eval()


def tiny_vae() -> AutoencoderKLWan:
    """A Wan VAE (8x8 pixels and 4 frames to a latent) that decodes 32x32x9 in about a tenth of a second."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    ).eval()


def tiny_vae_2_2() -> AutoencoderKLWan:
    """The VAE of Wan 2.2's 5B model in small: residual, patched, 16x16 pixels and 4 frames to a latent, 48 channels."""
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.1] * 48,
        latents_std=[1.5] * 48,
    ).eval()


def tiny_text_encoder() -> UMT5EncoderModel:
    """A UMT5 encoder of two layers and 32 channels."""
    config = UMT5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return UMT5EncoderModel(config).eval()


def build_tiny_wan(
    *, seed: int = 0, two_transformers: bool = False, expand_timesteps: bool = False, euler: bool = False
) -> WanPipeline:
    """Build the stock pipeline: Wan 2.1 by default, Wan 2.2's two-expert or 5B (expand_timesteps) form when asked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=tiny_tokenizer(),
            text_encoder=tiny_text_encoder(),
            vae=tiny_vae_2_2() if expand_timesteps else tiny_vae(),
            transformer=tiny_transformer(in_channels=48 if expand_timesteps else 16),
            scheduler=_euler() if euler else _unipc(),
            transformer_2=tiny_transformer() if two_transformers else None,
            boundary_ratio=0.875 if two_transformers else None,
            expand_timesteps=expand_timesteps,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_wan(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny Wan 2.1 with a `rushes.json` card into `folder`; the same seed gives the same weights."""
    return save_pipeline(build_tiny_wan(seed=seed), folder)


def save_pipeline(pipeline: WanPipeline, folder: Path, card: dict[str, Any] | None = CARD) -> Path:
    """Save any tiny pipeline as a diffusers folder, with a card unless `card` is None."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    if card is not None:
        (folder / "rushes.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return folder


def _unipc() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def _euler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.tiny_wan FOLDER")
    sys.stdout.write(f"{save_tiny_wan(Path(sys.argv[1]))}\n")
