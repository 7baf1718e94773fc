"""Trains a small Wan and its text encoder from nothing by flow matching on cached latents.

Legend: B batch, C latent channels, T latent frames, H W latent size, K text columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerFast

from post_train.attention import padding_bias, use_training_attention
from post_train.data.latents import LatentCache, LatentsConfig, Shard
from post_train.losses import flow_matching_errors, logit_normal_levels, noised, shifted_sigmas
from post_train.muon import Muon
from post_train.precision import Precision, autocast
from post_train.small_wan import TextEncoderConfig, TransformerConfig, build_text_encoder, build_transformer

_OPEN_SHARDS = 8
_VISITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """The model, the latents it learns from, and how: batch, flow shift and what is told of each clip.

    Errors of a latent channel count by its gain in the picture to the power of `gain_power` (see channel_weights).
    """

    text_encoder: TextEncoderConfig
    transformer: TransformerConfig
    latents: LatentsConfig
    batch: int
    text_tokens: int
    flow_shift: float
    short_share: float
    empty_share: float
    weight_decay: float
    gain_power: float


def shard_of(step: int, config: BaseConfig) -> int:
    """The shard that step `step` (from 1) learns from, one for some steps on end.

    Every fourth visit goes to the next shard, the others back to a random one of those seen: encoding a clip costs
    half of what learning from it does, so each is learnt from about four times.
    """
    visit = (step - 1) // (config.latents.shard_clips // config.batch)
    newest, again = divmod(visit, _VISITS)
    if newest < config.latents.shards and not again:
        return newest
    draw = torch.Generator().manual_seed(visit)
    return int(torch.randint(0, min(newest + 1, config.latents.shards), (1,), generator=draw))


def matrices_and_rest(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices inside the blocks, for Muon; and embeddings, norms, biases, first and last layers, for AdamW."""
    matrices, rest = [], []
    for name, p in module.named_parameters():
        inside = ".blocks." in f".{name}" or ".block." in f".{name}"
        hidden = p.ndim == 2 and inside and "relative_attention_bias" not in name
        (matrices if hidden else rest).append(p)
    return matrices, rest


class BaseTask:
    """Flow matching from text to latents; every step's clips, texts and noise are a function of its number."""

    def __init__(
        self,
        config: BaseConfig,
        tokenizer: PreTrainedTokenizerFast,
        cache: LatentCache,
        *,
        latents_mean: Tensor,
        latents_std: Tensor,
        channel_weights: Tensor,
        precision: Precision,
        sampler: Callable[[BaseTask, int, Path], None],
        compile_model: bool = False,
    ) -> None:
        self.config, self.tokenizer, self.cache = config, tokenizer, cache
        self.precision: Precision = precision
        self._sampler = sampler
        self.transformer = build_transformer(config.transformer)
        self.text_encoder = build_text_encoder(config.text_encoder)
        self.module: nn.Module = nn.ModuleDict({"transformer": self.transformer, "text_encoder": self.text_encoder})
        self._cross_attention = use_training_attention(self.transformer)
        self._forward = torch.compile(self.transformer, dynamic=False) if compile_model else self.transformer
        self._read = torch.compile(self.text_encoder, dynamic=False) if compile_model else self.text_encoder
        self._mean = latents_mean.view(1, -1, 1, 1, 1)
        self._std = latents_std.view(1, -1, 1, 1, 1)
        self._channel_weights = channel_weights
        self._shards: OrderedDict[int, Shard] = OrderedDict()

    def optimizer(self, lr: float) -> Optimizer:
        matrices, rest = matrices_and_rest(self.module)
        groups = [
            {"params": matrices, "orthogonal": True},
            {"params": rest, "weight_decay": 0.0},
        ]
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return Muon(groups, lr=lr, weight_decay=self.config.weight_decay, iteration_dtype=dtype)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, texts = self._batch(step, generator)
        noise = torch.randn(x0.shape, generator=generator)
        levels = logit_normal_levels(len(x0), generator)
        sigmas = shifted_sigmas(levels, self.config.flow_shift)
        velocity = self._velocity(noised(x0, noise, sigmas), sigmas, texts)
        errors = flow_matching_errors(velocity, x0, noise, self._channel_weights)
        with torch.no_grad():
            noisy = sigmas > 0.75
            high = float(errors[noisy].mean()) if bool(noisy.any()) else float(errors.mean())
        return errors.mean(), {"noisy": high}

    def sample(self, step: int, folder: Path) -> None:
        self._sampler(self, step, folder)

    def _velocity(self, x: Tensor, sigmas: Tensor, texts: list[str]) -> Tensor:
        with autocast(self.precision):
            states, lengths = self._encode(texts)
            self._cross_attention.bias = padding_bias(lengths, states.shape[1])
            out = self._forward(x, sigmas * 1000, states, return_dict=False)[0]
        return out.float()

    def _encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Text states [B, K, width], zero beyond each text's own length [B]; K is fixed, so the model compiles once."""
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=self.config.text_tokens, truncation=True, return_tensors="pt"
        )
        mask = tokens["attention_mask"]
        states = self._read(tokens["input_ids"], mask).last_hidden_state
        # One column more than the longest text may fill, so that every row keeps a zero to stand for its padding.
        states = nn.functional.pad(states * mask[..., None], (0, 0, 0, 1))
        return states, mask.sum(1)

    def _batch(self, step: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Normalised latents [B, C, T, H, W] of one shard's random rows, and what is told of each."""
        shard = self._shard(shard_of(step, self.config))
        rows = torch.randint(0, len(shard.full), (self.config.batch,), generator=generator)
        x0 = (shard.latents[rows].float() - self._mean) / self._std
        draws = torch.rand(len(rows), generator=generator).tolist()
        return x0, [self._text(shard, row, draw) for row, draw in zip(rows.tolist(), draws, strict=True)]

    def _text(self, shard: Shard, row: int, draw: float) -> str:
        if draw < self.config.empty_share:
            return ""
        return shard.short[row] if draw < self.config.empty_share + self.config.short_share else shard.full[row]

    def _shard(self, index: int) -> Shard:
        """Keeps the last few shards in memory."""
        if index not in self._shards:
            self._shards[index] = self.cache.shard(index)
            while len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(index)
        return self._shards[index]
