"""Wan 2.1 and 2.2, text to video: how diffusers' transformer(s), VAE and UMT5 encoder are loaded and driven.

B batch, F pixel frames, C channels, T latent frames, H W latent size, L tokens, D width.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ftfy
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from engines.components import keep_some_of, load_diffusers_model, load_some_of, load_text_model, load_tokenizer
from engines.errors import InvalidModel
from engines.family import EncodedText, padded_text
from engines.model_folder import check_weights, read_config, read_index
from engines.operators import whole_clip
from engines.operators.wan import use_operators
from engines.operators.wan_eight_bits import use_eight_bits
from engines.operators.wan_parts import (
    DECODED_FRAMES,
    DECODER,
    STEPS,
    columns_of,
    compiled_velocity,
    decoder_part,
    step_part,
)
from engines.operators.wan_prompt import PromptKeys, PromptSlot, is_of_prompts, prompt_keys
from engines.operators.wan_step import StepPrompts, step_prompts
from engines.operators.wan_vae import use_vae_operators
from engines.parts import CompiledPart, ModelPart
from engines.profile import ShapeProfile
from engines.row_exact import make_row_exact
from engines.types import Stage, VideoSpec

EXPERTS = ("transformer", "transformer_2")
MAX_TOKENS = 512
NUM_TRAIN_TIMESTEPS = 1000
# What a film may take when it is decoded in one pass instead of latent frame by latent frame.
_WHOLE_CLIP_BYTES = 1 << 30
_TILE_PIXELS = (64, 256)  # least side, for the seams, and largest, for the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class WanParts:
    """The loaded components. `transformer_low` takes over below `boundary` (Wan 2.2's low-noise expert)."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: UMT5EncoderModel
    vae: AutoencoderKLWan
    transformer: WanTransformer3DModel
    transformer_low: WanTransformer3DModel | None
    boundary: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WanCondition:
    """The text of a batch, and what each expert makes of it, from the first step on that it is asked."""

    text: EncodedText
    _keys: dict[int, tuple[PromptKeys, ...]] = field(default_factory=dict)
    _padded: dict[int, StepPrompts] = field(default_factory=dict)

    def keys_of(self, transformer: WanTransformer3DModel) -> tuple[PromptKeys, ...]:
        """Keys and values of every row's prompt, computed once."""
        found = self._keys.get(id(transformer))
        if found is None:
            rows = zip(self.text.embeds, self.text.lengths, strict=True)
            found = tuple(prompt_keys(transformer, embeds_LD, length) for embeds_LD, length in rows)
            self._keys[id(transformer)] = found
        return found

    def padded_of(self, transformer: WanTransformer3DModel) -> StepPrompts:
        """The same as a compiled step takes them."""
        found = self._padded.get(id(transformer))
        if found is None:
            rows = self.keys_of(transformer)
            found = self._padded[id(transformer)] = step_prompts(rows, columns_of(rows))
        return found


class Wan:
    """A Wan model ready to be driven; see `engines.family.Family` for the promises."""

    text_columns = MAX_TOKENS

    def __init__(self, parts: WanParts, device: torch.device) -> None:
        self.parts = parts
        self.device = device
        config = parts.vae.config
        self._mean_C111 = _channels(config["latents_mean"], device)
        # Stock divides by the reciprocal; multiplying by the value itself would differ in the last bit.
        self._inverse_std_C111 = 1.0 / _channels(config["latents_std"], device)
        # By transformer, once our operators are in it.
        self._slots: dict[int, PromptSlot] = {}
        # By transformer, once a package's parts are in place.
        self._steps: dict[int, CompiledPart] = {}
        self._decoder: CompiledPart | None = None
        self._whole_clips = False

    def latent_shape(self, spec: VideoSpec) -> tuple[int, int, int, int]:
        config = self.parts.vae.config
        spatial, temporal = config["scale_factor_spatial"], config["scale_factor_temporal"]
        frames = (spec.num_frames - 1) // temporal + 1
        return self.parts.transformer.config["in_channels"], frames, spec.height // spatial, spec.width // spatial

    def use_operators(self, eight_bits: Literal["int8", "fp8"] | None = None) -> None:
        if eight_bits is not None:
            for transformer in self._experts:
                use_eight_bits(transformer, eight_bits)
            self.use_vae_operators()
            return
        self._slots = {id(t): slot for t, slot in zip(self._experts, use_operators(*self._experts), strict=True)}
        self.use_vae_operators()

    def use_vae_operators(self) -> None:
        """Have our operators decode, and clips that fit in one pass: for who brings a transformer of his own."""
        use_vae_operators(self.parts.vae)
        self._whole_clips = True

    @torch.inference_mode()
    def parts_to_compile(
        self, usual: VideoSpec, corners: tuple[VideoSpec, VideoSpec], profile: ShapeProfile, *, operators: bool
    ) -> tuple[ModelPart, ...]:
        if operators:
            use_vae_operators(self.parts.vae)
        shape, bounds = self.latent_shape(usual), (self.latent_shape(corners[0]), self.latent_shape(corners[1]))
        text = self.encode(["a film", ""])
        rows = [self.condition(text).keys_of(t) for t in self._experts]
        steps = [
            step_part(name, t, keys, shape, bounds, profile)
            for name, t, keys in zip(STEPS, self._experts, rows, strict=False)
        ]
        return (*steps, decoder_part(self.parts.vae, shape, bounds))

    def use_compiled(self, parts: Mapping[str, CompiledPart]) -> None:
        self._steps = {id(t): parts[name] for name, t in zip(STEPS, self._experts, strict=False)}
        self._decoder = parts.get(DECODER)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> EncodedText:
        rows = {prompt: self._encode_one(prompt) for prompt in dict.fromkeys(prompts)}
        return padded_text([rows[prompt] for prompt in prompts], MAX_TOKENS)

    @torch.inference_mode()
    def condition(self, text: EncodedText) -> WanCondition:
        return WanCondition(text=text)

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, condition: WanCondition) -> torch.Tensor:
        transformer = self._expert(timestep)
        # One time for all rows, which the modulation broadcasts. Stock repeats it for each row and, for Wan 2.2's ti2v
        # model (expand_timesteps), for each token; in text to video these are all equal, so it only costs.
        time_1 = timestep.to(self.device).reshape(1)
        compiled = self._steps.get(id(transformer))
        if compiled is not None:
            latents = latents_BCTHW.to(transformer.dtype)
            return compiled_velocity(compiled, latents, time_1.float(), condition.padded_of(transformer)).float()
        embeds, slot = condition.text.embeds, self._slots.get(id(transformer))
        with nullcontext() if slot is None else _prompts_in(slot, condition.keys_of(transformer)):
            (velocity_BCTHW,) = transformer(
                hidden_states=latents_BCTHW.to(transformer.dtype),
                timestep=time_1,
                # With keys of its own no block looks at the text, so that a token of it is enough.
                encoder_hidden_states=embeds if slot is None else embeds[:1, :1],
                return_dict=False,
            )
        return velocity_BCTHW.float()

    @torch.inference_mode()
    def decode(self, latents_CTHW: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
        latents = latents_CTHW.to(self.device, torch.float32) / self._inverse_std_C111 + self._mean_C111
        vae, latents = self.parts.vae, latents.unsqueeze(0)
        whole = not tiled and whole_clip.decoding_bytes(vae, latents.shape) <= _WHOLE_CLIP_BYTES
        if self._decoder is not None and whole and latents.shape[2] >= DECODED_FRAMES:
            video_1CFHW = self._decoder(latents)
        elif self._whole_clips and whole:
            video_1CFHW = whole_clip.decode(vae, latents)
        else:
            with _tiling(vae, max(latents.shape[3:])) if tiled else nullcontext():
                (video_1CFHW,) = vae.decode(latents, return_dict=False)
        unit_FHWC = (video_1CFHW[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
        return (unit_FHWC * 255).round().to(torch.uint8).cpu().contiguous()

    def keep_only(self, stage: Stage | None) -> None:
        parts = self.parts
        users: dict[Stage, list[torch.nn.Module | None]] = {
            "encode": [parts.text_encoder],
            "denoise": [parts.transformer, parts.transformer_low],
            "decode": [parts.vae],
        }
        host = torch.device("cpu")
        for user, modules in sorted(users.items(), key=lambda item: item[0] in (stage, None)):  # room is made first
            for module in modules:
                if module is not None:
                    module.to(self.device if stage in (user, None) else host)

    @property
    def _experts(self) -> list[WanTransformer3DModel]:
        return [t for t in (self.parts.transformer, self.parts.transformer_low) if t is not None]

    @property
    def _dtype(self) -> torch.dtype:
        return self.parts.transformer.dtype

    def _expert(self, timestep: torch.Tensor) -> WanTransformer3DModel:
        parts = self.parts
        if parts.transformer_low is None or parts.boundary is None:
            return parts.transformer
        high_noise = bool(timestep >= parts.boundary * NUM_TRAIN_TIMESTEPS)
        return parts.transformer if high_noise else parts.transformer_low

    def _encode_one(self, prompt: str) -> torch.Tensor:
        """[L, D], only the true tokens: padding is masked out of every softmax, so it would only cost time.

        Alone, not in a batch, so that an embedding does not depend on whose prompt is longer.
        """
        tokens = self.parts.tokenizer(
            [clean_prompt(prompt)], max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).to(self.device)
        if tokens.input_ids.numel() == 0:  # a tokenizer without an end token makes nothing of an empty prompt
            return torch.zeros(0, self.parts.text_encoder.config.d_model, device=self.device, dtype=self._dtype)
        hidden_1LD = self.parts.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return hidden_1LD[0].to(self._dtype)


def load(folder: Path, *, device: torch.device, dtype: torch.dtype, compiled: Collection[str] = ()) -> Wan:
    """Load a diffusers Wan folder. Transformer and text encoder in `dtype`, the VAE in float32 as its makers advise.

    Of a transformer whose step is `compiled` a package has what prompts need alone; see `leave_out_compiled`.
    """
    index = read_index(folder)
    low_noise = index.get("transformer_2") not in (None, [None, None])
    boundary = index.get("boundary_ratio")
    if low_noise and not isinstance(boundary, int | float):
        raise InvalidModel(
            f"model_index.json has a transformer_2 but boundary_ratio {boundary!r}; a fraction is needed"
        )
    # Nothing is read before everything is known to be safe: the big files may come minutes after a bad small one.
    for name in (EXPERTS[0], "vae", "text_encoder", *(EXPERTS[1:] if low_noise else [])):
        check_weights(folder / name)
    _check_statistics(read_config(folder / "vae" / "config.json"))
    parts = WanParts(
        tokenizer=load_tokenizer(folder / "tokenizer"),
        text_encoder=load_text_model(UMT5EncoderModel, folder / "text_encoder", dtype, device),
        vae=load_diffusers_model(AutoencoderKLWan, folder / "vae", torch.float32, device),
        transformer=_transformer(folder / EXPERTS[0], dtype, device, alone=STEPS[0] in compiled),
        transformer_low=(
            _transformer(folder / EXPERTS[1], dtype, device, alone=STEPS[1] in compiled) if low_noise else None
        ),
        boundary=boundary if low_noise else None,
    )
    for transformer in (parts.transformer, parts.transformer_low):
        if transformer is not None:
            make_row_exact(transformer)
    return Wan(parts, device)


def leave_out_compiled(folder: Path, compiled: Collection[str]) -> None:
    """Takes out of a package's folder, which nobody uses yet, what its compiled parts have weights of their own for."""
    for name, step in zip(EXPERTS, STEPS, strict=True):
        if step in compiled:
            keep_some_of(folder / name, is_of_prompts)


def _transformer(folder: Path, dtype: torch.dtype, device: torch.device, *, alone: bool) -> WanTransformer3DModel:
    if alone:
        return load_some_of(WanTransformer3DModel, folder, is_of_prompts, dtype, device)
    return load_diffusers_model(WanTransformer3DModel, folder, dtype, device)


def clean_prompt(prompt: str) -> str:
    """Mend mojibake, undo (doubled) HTML escapes, and make every run of white space one space."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


def _check_statistics(vae: dict[str, Any]) -> None:
    """Each latent channel has a mean and a deviation; a list of another length could broadcast without a word."""
    channels = vae.get("z_dim", 16)
    for key in ("latents_mean", "latents_std"):
        values = vae.get(key, [1.0] * 16)
        numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != channels or (key == "latents_std" and min(values) <= 0):
            raise InvalidModel(f"the VAE's {key} must be {channels!r:.20} numbers, one for each of its latent channels")


@contextmanager
def _prompts_in(slot: PromptSlot, rows: tuple[PromptKeys, ...]) -> Iterator[None]:
    slot.rows = rows
    try:
        yield
    finally:
        slot.rows = None


@contextmanager
def _tiling(vae: AutoencoderKLWan, latent_side: int) -> Iterator[None]:
    """Decode in tiles, a bit more than half the picture's longer side each, that overlap by a quarter."""
    spatial = vae.config["scale_factor_spatial"]
    smallest, largest = (pixels // spatial for pixels in _TILE_PIXELS)
    tile = max(smallest, min(largest, latent_side // 2 + 1))
    side, stride = tile * spatial, (tile - max(1, tile // 4)) * spatial
    vae.enable_tiling(side, side, stride, stride)
    try:
        yield
    finally:
        vae.disable_tiling()


def _channels(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
