"""Writes trained weights as an ordinary diffusers folder that stock WanPipeline.from_pretrained loads.

Weights are stored as fp16 safetensors; the configs say float32, so that every loader computes in full precision.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engines.card import CARD_FILE, CARD_VERSION, ModelCard
from engines.whole_writes import folder_appearing_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The four trained parts of a pipeline, in fp32, on any device."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: UMT5EncoderModel
    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan


_Model = TypeVar("_Model", bound=torch.nn.Module)


@torch.no_grad()
def _halved(module: _Model) -> _Model:
    """A copy with fp16 weights, refused when one of them does not fit."""
    half = copy.deepcopy(module).cpu().half()
    for name, value in half.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"weight {name} overflows fp16; train with weight decay or export this part in fp32")
    return half


def _say_float32(config: Path) -> None:
    content = json.loads(config.read_text())
    content["dtype"] = "float32"
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _forget_paths(folder: Path) -> None:
    """Takes out of the parts' configs where on the training machine they were loaded from."""
    for config in sorted(folder.glob("*/config.json")):
        content = json.loads(config.read_text())
        if content.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def export_pipeline(folder: Path, parts: Parts, card: ModelCard, manifest: dict[str, Any], *, readme: str) -> None:
    """Writes `folder` anew: the pipeline, `rushes.json` (the card), `manifest.json` (its origin) and `README.md`.

    The old folder is replaced in one rename, so a reader never meets half a model.
    """
    pipeline = WanPipeline(
        tokenizer=cast("Any", parts.tokenizer),
        text_encoder=_halved(parts.text_encoder),
        vae=_halved(parts.vae),
        transformer=_halved(parts.transformer),
        # The pipeline's annotations name one tokenizer and one scheduler class; it takes, and Wan ships with, these.
        scheduler=cast(
            "Any",
            UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=card.defaults.flow_shift
            ),
        ),
    )
    with folder_appearing_whole(folder) as part:
        pipeline.save_pretrained(part, safe_serialization=True)
        _say_float32(part / "text_encoder" / "config.json")
        _forget_paths(part)
        (part / CARD_FILE).write_text(json.dumps({"version": CARD_VERSION, **asdict(card)}, indent=2) + "\n")
        (part / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        (part / "README.md").write_text(readme)
