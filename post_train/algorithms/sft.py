"""Supervised fine-tuning of any Wan by flow matching: the loss of its training at the noise levels of its serving.

Legend: B batch, C latent channels, T latent frames, H W latent size, K text columns, L a prompt's own tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from post_train.algorithms.base_training import matrices_and_rest
from post_train.attention import TEXT_TOKENS, padding_bias, use_training_attention
from post_train.data.clip_latents import ClipLatents
from post_train.data.embeddings import PromptEmbeddings
from post_train.data.training_clips import TrainingClips
from post_train.distributed import Ranks, shard
from post_train.lora import Lora, TrainedOnly, add_lora
from post_train.losses import flow_matching_errors, logit_normal_levels, noised, noisy_mean, shifted_sigmas
from post_train.muon import Muon
from post_train.precision import Precision

_COLUMNS_STEP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig:
    """How a model is fine-tuned. `batch` is what one step learns from, on however many ranks; `lora` None trains all.

    A rank computes at most `micro_batch` clips at once and adds up their gradients. `empty_share` of the clips are told
    nothing, for guidance; `other_share` are told one of their further captions. `uniform_share` of the noise levels are
    uniform, the others logit-normal, all shifted as the model is served. Errors of a latent channel count by its gain
    in the picture to the power of `gain_power`; 0 counts all alike, as Wan itself was trained.
    """

    batch: int
    micro_batch: int
    lora: Lora | None
    optimizer: Literal["adamw", "muon"]
    weight_decay: float
    empty_share: float
    other_share: float
    uniform_share: float
    gain_power: float
    gradient_checkpointing: bool


def rows_per_rank(config: SftConfig, ranks: int) -> int:
    """How many clips of a step each rank computes; ValueError unless the batch divides among them."""
    if config.batch < 1 or config.micro_batch < 1:
        raise ValueError(f"batch {config.batch} and micro-batch {config.micro_batch} must be 1 or more")
    if config.batch % ranks:
        raise ValueError(
            f"a batch of {config.batch} clips does not divide among {ranks} ranks; "
            f"choose a multiple of {ranks}, or fewer ranks"
        )
    return config.batch // ranks


def check_optimizer(config: SftConfig, ranks: int) -> None:
    """ValueError for an optimizer that cannot train what is asked, on so many ranks."""
    if config.optimizer not in {"adamw", "muon"}:
        raise ValueError(f"optimizer {config.optimizer!r} is unknown; use adamw or muon")
    if config.optimizer == "muon" and (ranks > 1 or config.lora is not None):
        raise ValueError(
            "muon turns whole matrices, so it trains all weights (no LoRA) on one process; use --optimizer adamw"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SftData:
    """Prepared clips and where their tensors are read from, with the VAE's statistics and what channels count, [C]."""

    clips: TrainingClips
    latents: ClipLatents
    embeddings: PromptEmbeddings
    mean: Tensor
    std: Tensor
    channel_weights: Tensor | None


class SftTask:
    """Flow matching on cached latents and embeddings; every step's clips, captions, levels and noise are its number's.

    Each rank computes its share of the same global batch, so the number of ranks changes nothing but rounding.
    """

    def __init__(
        self,
        config: SftConfig,
        transformer: WanTransformer3DModel,
        data: SftData,
        *,
        flow_shift: float,
        ranks: Ranks,
        precision: Precision,
        sampler: Callable[[int, Path], None],
        compile_model: bool = False,
    ) -> None:
        self.config, self.transformer, self.data = config, transformer, data
        self.flow_shift, self.ranks = flow_shift, ranks
        self.precision: Precision = precision
        self._rows = rows_per_rank(config, ranks.count)
        self._sampler = sampler
        check_optimizer(config, ranks.count)
        if config.lora is not None:
            add_lora(transformer, config.lora)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        self._columns = text_columns(data)
        self._cross_attention = use_training_attention(transformer)
        shard(transformer, list(transformer.blocks), ranks)
        self.module: nn.Module = TrainedOnly(transformer)
        self._forward = torch.compile(transformer, dynamic=False) if compile_model else transformer
        self._mean, self._std = (v.view(-1, 1, 1, 1).float() for v in (data.mean, data.std))

    def optimizer(self, lr: float) -> Optimizer:
        if self.config.optimizer == "muon":
            matrices, rest = matrices_and_rest(self.transformer)
            groups = [{"params": matrices, "orthogonal": True}, {"params": rest, "weight_decay": 0.0}]
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            return Muon(groups, lr=lr, weight_decay=self.config.weight_decay, iteration_dtype=dtype)
        trained = list(self.module.parameters())
        groups = [
            {"params": [p for p in trained if p.ndim >= 2]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        return AdamW(groups, lr=lr, weight_decay=self.config.weight_decay, betas=(0.9, 0.99))

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this rank's whole share at once, for a batch that needs no accumulation."""
        parts = list(self.losses(step, generator))
        total = torch.stack([loss for loss, _ in parts]).sum()
        return total, {k: torch.stack([m[k] for _, m in parts]).sum() for k in parts[0][1]}

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """This rank's share in parts of at most `micro_batch` clips; losses and figures of the parts add up."""
        config = self.config
        # Drawn for the whole batch on every rank, so that each clip's numbers are the same wherever it is computed.
        rows = self.data.clips.rows(step, config.batch)
        levels = logit_normal_levels(config.batch, generator, uniform_share=config.uniform_share)
        draws = torch.rand(config.batch, 2, generator=generator).tolist()
        noise_seeds = torch.randint(0, 2**62, (config.batch,), generator=generator).tolist()
        first = self.ranks.rank * self._rows
        for start in range(first, first + self._rows, config.micro_batch):
            part = slice(start, min(start + config.micro_batch, first + self._rows))
            texts = [self._text(row, *draw) for row, draw in zip(rows[part], draws[part], strict=True)]
            errors, noisy = self._errors(rows[part], texts, levels[part], noise_seeds[part])
            share = len(texts) / self._rows
            yield errors.mean() * share, {"noisy": noisy * share}

    def sample(self, step: int, folder: Path) -> None:
        self._sampler(step, folder)

    def _errors(
        self, rows: list[int], texts: list[str], levels: Tensor, noise_seeds: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Each row's error [B] on the device, and the mean over the noisy ones (over all when none is)."""
        device = self.ranks.device
        x0 = torch.stack([self._latents(row) for row in rows]).to(device)
        noise = torch.stack([_noise(x0.shape[1:], seed) for seed in noise_seeds]).to(device)
        sigmas = shifted_sigmas(levels, self.flow_shift).to(device)
        weights = self.data.channel_weights
        weights = None if weights is None else weights.to(device)
        errors = flow_matching_errors(self._velocity(noised(x0, noise, sigmas), sigmas, texts), x0, noise, weights)
        return errors, noisy_mean(errors.detach(), sigmas)

    def _velocity(self, x: Tensor, sigmas: Tensor, texts: list[str]) -> Tensor:
        columns, device = self._columns, self.ranks.device
        states, lengths = padded_texts([self.data.embeddings.read(text) for text in texts], columns)
        bias = padding_bias(lengths, columns) if columns < TEXT_TOKENS else None
        self._cross_attention.bias = None if bias is None else bias.to(device)
        # Each weight is cast once a pass, so a cache of the casts would only keep a second model in memory.
        bf16 = self.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            out = self._forward(x, sigmas * 1000, states.to(device), return_dict=False)[0]
        return out.float()

    def _latents(self, row: int) -> Tensor:
        """The normalised latents [C, T, H, W] of a clip."""
        raw = self.data.latents.read(self.data.clips.clips[row].latents)
        return (raw.float() - self._mean) / self._std

    def _text(self, row: int, which: float, other: float) -> str:
        clip, config = self.data.clips.clips[row], self.config
        if which < config.empty_share:
            return ""
        if clip.others and which < config.empty_share + config.other_share:
            return clip.others[int(other * len(clip.others))]
        return clip.caption


def text_columns(data: SftData) -> int:
    """K for every batch of a run, so that a compiled model meets one shape: room for the longest of all captions.

    It leaves every row a zero column to stand for its padding, unless a prompt fills all 512.
    """
    texts = {"", *(text for clip in data.clips.clips for text in (clip.caption, *clip.others))}
    needed = max(data.embeddings.length(text) for text in texts) + 1
    return min(TEXT_TOKENS, -(-needed // _COLUMNS_STEP) * _COLUMNS_STEP)


def padded_texts(embeds: list[Tensor], columns: int) -> tuple[Tensor, Tensor]:
    """Embeddings [L, D] of different length as states [B, K, D], zero beyond each one's own length [B]."""
    lengths = torch.tensor([len(e) for e in embeds])
    states = embeds[0].new_zeros(len(embeds), columns, embeds[0].shape[1])
    for row, own in zip(states, embeds, strict=True):
        row[: len(own)] = own
    return states, lengths


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
