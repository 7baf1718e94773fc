"""Trains a small Wan and its text encoder from nothing by flow matching on cached latents.

Legend: B batch, C latent channels, T latent frames, H W latent size, K text columns.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerFast

from post_train.attention import padding_bias, use_training_attention
from post_train.data.latents import LatentCache, LatentsConfig
from post_train.losses import flow_matching_errors, logit_normal_levels, noised, noisy_mean, shifted_sigmas
from post_train.muon import Muon
from post_train.precision import CPU, Precision, autocast
from post_train.random_numbers import normal
from post_train.small_wan import TextEncoderConfig, TransformerConfig, build_text_encoder, build_transformer

_OPEN_SHARDS = 8  # of 63 MB; a GPU's memory has room for all, and it would learn from one in less time than to read it


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenShard:
    """A shard as steps read it: raw latents fp16 [N, C, T, H, W] on the device, token ids [N, K] of both captions."""

    latents: Tensor
    full: Tensor
    short: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """The model, the latents it learns from, and how: batch, flow shift and what is told of each clip.

    Errors of a latent channel count by its gain in the picture to the power of `gain_power` (see channel_weights).
    Each shard is learnt from about `visits` times, and from the first step on the first `ready` ones are drawn from:
    what encoding a clip costs beside learning from it decides both.
    """

    text_encoder: TextEncoderConfig
    transformer: TransformerConfig
    latents: LatentsConfig
    visits: int
    ready: int
    batch: int
    text_tokens: int
    flow_shift: float
    short_share: float
    empty_share: float
    weight_decay: float
    gain_power: float


def shard_of(step: int, config: BaseConfig) -> int:
    """The shard that step `step` (from 1) learns from, one for some steps on end.

    Of `config.visits` visits one goes to the next shard, the others back to a random one of those seen.
    """
    visit = (step - 1) // (config.latents.shard_clips // config.batch)
    newest, again = divmod(visit, config.visits)
    newest += config.ready
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
        device: torch.device = CPU,
    ) -> None:
        # A copy, for it keeps the last call's length, and the run exports the tokenizer as it was trained.
        self.config, self.tokenizer, self.cache, self.device = config, copy.deepcopy(tokenizer), cache, device
        self.precision: Precision = precision
        self._sampler = sampler
        self.transformer = build_transformer(config.transformer)
        self.text_encoder = build_text_encoder(config.text_encoder)
        self.module: nn.Module = nn.ModuleDict({"transformer": self.transformer, "text_encoder": self.text_encoder})
        self.module.to(device)
        self._cross_attention = use_training_attention(self.transformer)
        self._forward = torch.compile(self.transformer, dynamic=False) if compile_model else self.transformer
        self._read = torch.compile(self.text_encoder, dynamic=False) if compile_model else self.text_encoder
        self._mean = latents_mean.view(1, -1, 1, 1, 1).to(device)
        self._std = latents_std.view(1, -1, 1, 1, 1).to(device)
        self._channel_weights = channel_weights.to(device)
        assert isinstance(tokenizer.pad_token_id, int)
        self._pad = tokenizer.pad_token_id
        self._empty = self._tokens([""])
        self._shards: OrderedDict[int, _OpenShard] = OrderedDict()

    def optimizer(self, lr: float) -> Optimizer:
        matrices, rest = matrices_and_rest(self.module)
        groups = [
            {"params": matrices, "orthogonal": True},
            {"params": rest, "weight_decay": 0.0},
        ]
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return Muon(groups, lr=lr, weight_decay=self.config.weight_decay, iteration_dtype=dtype)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x0, tokens = self._batch(step, generator)
        noise = normal(x0.shape, generator, self.device)
        sigmas = shifted_sigmas(logit_normal_levels(len(x0), generator), self.config.flow_shift).to(self.device)
        velocity = self._velocity(noised(x0, noise, sigmas), sigmas, tokens)
        errors = flow_matching_errors(velocity, x0, noise, self._channel_weights)
        return errors.mean(), {"noisy": noisy_mean(errors.detach(), sigmas)}

    def sample(self, step: int, folder: Path) -> None:
        self._sampler(self, step, folder)

    def _velocity(self, x: Tensor, sigmas: Tensor, tokens: Tensor) -> Tensor:
        with autocast(self.precision, self.device.type):
            states, lengths = self._encode(tokens)
            self._cross_attention.bias = padding_bias(lengths, states.shape[1]).to(self.device)
            out = self._forward(x, sigmas * 1000, states, return_dict=False)[0]
        return out.float()

    def _encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text states [B, K, width] of token ids [B, K], zero beyond each text's own length [B] (on the CPU).

        K is fixed, so the model compiles once.
        """
        mask = (tokens != self._pad).long()
        lengths = mask.sum(1)
        mask = mask.to(self.device)
        states = self._read(tokens.to(self.device), mask).last_hidden_state
        # One column more than the longest text may fill, so that every row keeps a zero to stand for its padding.
        return nn.functional.pad(states * mask[..., None], (0, 0, 0, 1)), lengths

    def _tokens(self, texts: list[str]) -> Tensor:
        """Token ids [N, K] of texts, cut or padded to one length."""
        return self.tokenizer(
            texts, padding="max_length", max_length=self.config.text_tokens, truncation=True, return_tensors="pt"
        )["input_ids"]

    def _batch(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalised latents [B, C, T, H, W] of one shard's random rows, and the tokens [B, K] of what each is told."""
        shard, config = self._shard(shard_of(step, self.config)), self.config
        rows = torch.randint(0, len(shard.full), (config.batch,), generator=generator)
        x0 = (shard.latents[rows.to(self.device)].float() - self._mean) / self._std
        draws = torch.rand(len(rows), 1, generator=generator)
        told = torch.where(draws < config.empty_share + config.short_share, shard.short[rows], shard.full[rows])
        return x0, torch.where(draws < config.empty_share, self._empty, told)

    def _shard(self, index: int) -> _OpenShard:
        """Keeps the last few shards in memory; on an accelerator all of them."""
        if index not in self._shards:
            shard = self.cache.shard(index)
            self._shards[index] = _OpenShard(
                latents=shard.latents.to(self.device), full=self._tokens(shard.full), short=self._tokens(shard.short)
            )
            while self.device.type == "cpu" and len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(index)
        return self._shards[index]
