"""A Wan folder taken apart for training: the transformer that learns, and the frozen parts that prepare its data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5EncoderModel

from engines.card import ModelCard, read_card
from engines.components import build_on_meta, load_diffusers_model, load_text_model, load_tokenizer
from engines.errors import InvalidModel
from engines.families.wan import Wan, WanParts
from engines.model_folder import read_config, read_index
from engines.types import VideoSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDigests:
    """SHA-256 of the files of each part: they name the caches and checkpoints that a model's weights decide."""

    transformer: str
    vae: str
    text_encoder: str

    @property
    def whole(self) -> str:
        """One hash of all parts."""
        return hashlib.sha256(f"{self.transformer}:{self.vae}:{self.text_encoder}".encode()).hexdigest()


def folder_digest(*folders: Path) -> str:
    """SHA-256 over names and bytes of every JSON, model and safetensors file in `folders`."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".model", ".txt"}):
            with path.open("rb") as file:
                digest.update(f"{folder.name}/{path.name}\n".encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def model_digests(model: Path) -> ModelDigests:
    """The digests of a model folder; reads every weight file once."""
    return ModelDigests(
        transformer=folder_digest(model / "transformer"),
        vae=folder_digest(model / "vae"),
        text_encoder=folder_digest(model / "text_encoder", model / "tokenizer"),
    )


def trainable_card(model: Path) -> ModelCard:
    """The card of a model that can be trained here; InvalidModel for another family or for two experts."""
    card = read_card(model)
    if card.family != "wan":
        raise InvalidModel(f"{model.name} is of family {card.family!r}; only wan models are trained here")
    if read_index(model).get("transformer_2") not in (None, [None, None]):
        raise InvalidModel(
            f"{model.name} has two transformers, one for high and one for low noise; training them is not supported"
        )
    return card


def load_transformer(model: Path, dtype: torch.dtype) -> WanTransformer3DModel:
    """The transformer in training mode, on the CPU."""
    transformer = load_diffusers_model(WanTransformer3DModel, model / "transformer", dtype, torch.device("cpu"))
    return transformer.train().requires_grad_(requires_grad=True)


def load_encoders(model: Path, device: torch.device) -> Wan:
    """The text encoder and the VAE behind the engine's own interface, so that training sees what serving computes.

    The transformer stays on the meta device: encoding needs nothing of it but its dtype, which is float32 here.
    """
    parts = WanParts(
        tokenizer=load_tokenizer(model / "tokenizer"),
        text_encoder=load_text_model(UMT5EncoderModel, model / "text_encoder", torch.float32, device),
        vae=load_diffusers_model(AutoencoderKLWan, model / "vae", torch.float32, device),
        transformer=build_on_meta(WanTransformer3DModel, read_config(model / "transformer" / "config.json")),
        transformer_low=None,
        boundary=None,
    )
    return Wan(parts, device)


def check_training_spec(spec: VideoSpec, model: Path) -> None:
    """ValueError unless latents and patches of a model divide a film of this geometry."""
    limits = read_card(model).limits
    for what, value in (("width", spec.width), ("height", spec.height)):
        if value <= 0 or value % limits.spatial_multiple:
            raise ValueError(f"{what} is {value}; {model.name} needs a multiple of {limits.spatial_multiple}")
    if spec.num_frames < 1 or (spec.num_frames - 1) % limits.temporal_multiple:
        raise ValueError(
            f"num_frames is {spec.num_frames}; {model.name} needs a multiple of {limits.temporal_multiple} plus 1"
        )
    if spec.fps < 1:
        raise ValueError(f"fps is {spec.fps}; it must be 1 or more")
