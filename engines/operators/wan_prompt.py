"""A prompt's keys and values for every cross-attention of a Wan transformer, computed once for all steps of a film.

Wan attends to 512 text tokens of which all but a prompt's own are zeros. Zeros are all alike after the text's layers,
so m of them count as one whose logit is raised by log(m): the softmax, and so the film, is the same to rounding. Each
prompt is computed alone and each row attends alone, so a film does not depend on how long its mates' prompts are.
B batch, L tokens, K columns kept of a prompt, H heads, E width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import nn
from torch.nn import functional as F

from kernels.modulated_norm import modulated_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptKeys:
    """Of one prompt: keys and values [1, H, K, E] of each block, and what its columns' logits are raised by, [1, K]."""

    blocks: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    raised: torch.Tensor


def is_of_prompts(tensor: str) -> bool:
    """Whether a transformer's tensor of that name is needed for a prompt's keys and values."""
    return "condition_embedder.text_embedder." in tensor or any(
        f".attn2.{part}." in tensor for part in ("to_k", "to_v", "norm_k")
    )


@dataclass(slots=True)
class PromptSlot:
    """Where the blocks of one transformer find the prompts of the rows that are being computed; None between calls."""

    rows: Sequence[PromptKeys] | None = None


def prompt_keys(transformer: WanTransformer3DModel, embeds_LD: torch.Tensor, length: int) -> PromptKeys:
    """Of a prompt whose first `length` rows of `embeds` are its own and all others are zeros."""
    total = len(embeds_LD)
    columns = min(length + 1, total)
    text_1KD = transformer.condition_embedder.text_embedder(embeds_LD[None, :columns])
    raised = torch.zeros(1, columns, device=embeds_LD.device, dtype=text_1KD.dtype)
    if length < total:
        raised[0, -1] = math.log(total - length)
    return PromptKeys(
        blocks=tuple(_keys(block.get_submodule("attn2"), text_1KD) for block in transformer.blocks), raised=raised
    )


def _keys(module: nn.Module, text_1KD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(module, WanAttention)
    key = _normed(module.to_k(text_1KD), module.norm_k)
    return _heads(key, module), _heads(module.to_v(text_1KD), module)


def attended_to_prompts(
    module: WanAttention, x_BLD: torch.Tensor, rows: Sequence[PromptKeys], block: int
) -> torch.Tensor:
    """Cross-attention [B, L, D] of each row of `x` to its own prompt."""
    query = _heads(_normed(module.to_q(x_BLD), module.norm_q), module)
    seen = [
        F.scaled_dot_product_attention(query[row : row + 1], *prompt.blocks[block], attn_mask=prompt.raised)
        for row, prompt in enumerate(rows)
    ]
    out = torch.cat(seen).transpose(1, 2).flatten(2)
    return module.to_out[1](module.to_out[0](out))


def _normed(x: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
    return modulated_norm(x, weight=norm.weight, eps=eps_of(norm), rms=True)


def eps_of(norm: nn.RMSNorm) -> float:
    """What a norm adds under its root; torch's own default where none was given."""
    return torch.finfo(torch.float32).eps if norm.eps is None else norm.eps


def _heads(x_BLD: torch.Tensor, module: WanAttention) -> torch.Tensor:
    return x_BLD.unflatten(2, (module.heads, -1)).transpose(1, 2)
