"""Wan's attention as training wants it: score matrices on a CPU, and 512 padded text tokens at a tenth of their cost.

torch's fused CPU attention is slow backwards: half of a training step on clips of 80 tokens, where the scores it avoids
to store would fit in a cache. So the scores are written out there; on other devices the fused kernels run.

Wan attends to 512 text tokens of which all but a prompt's own are zeros. Zero tokens are all equal, so m of them count
as one whose logit is raised by log(m): softmax weights, and so the output, are the same to rounding. Weights trained so
are used by any pipeline that pads with zeros, as stock diffusers does.
Legend: B batch, K text columns kept, L tokens, N heads, D head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel, WanTransformerBlock
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from diffusers.models.attention_processor import AttentionProcessor

TEXT_TOKENS = 512


def padding_bias(lengths: Tensor, columns: int) -> Tensor:
    """The logit bias [B, 1, 1, K] that lets `columns` text columns stand for 512; `lengths` [B] are the prompts' own.

    Each prompt must leave at least one zero column: lengths < columns <= 512.
    """
    if columns > TEXT_TOKENS or int(lengths.max()) >= columns:
        raise ValueError(
            f"{columns} columns cannot stand for {TEXT_TOKENS} with prompts of {int(lengths.max())} tokens"
        )
    zeros_kept = (columns - lengths).float()
    raised = torch.log((TEXT_TOKENS - lengths).float() / zeros_kept)
    is_zero = torch.arange(columns)[None] >= lengths[:, None]
    return (is_zero * raised[:, None])[:, None, None]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v over [B, N, L, D], softmax in fp32; `bias` broadcasts over the scores."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scores = (query @ key.mT).float() * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1).to(value.dtype) @ value


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on [B, L, N, D] by Wan's tables [1, L, 1, D], where neighbouring channels are a pair."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    pairs = torch.stack((first * cos - second * sin, first * sin + second * cos), -1)
    return pairs.flatten(-2).type_as(x)


class TrainingAttention:
    """A Wan attention processor for self- and cross-attention; `bias`, for the latter, is set before each forward."""

    def __init__(self) -> None:
        self.bias: Tensor | None = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert attention_mask is None
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(source)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(source).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        if rotary_emb is not None:
            query, key = rotated(query, *rotary_emb), rotated(key, *rotary_emb)
        query, key = query.transpose(1, 2).to(value.dtype), key.transpose(1, 2).to(value.dtype)
        out = attend(query, key, value, self.bias)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2, 3)))


def use_training_attention(transformer: WanTransformer3DModel) -> TrainingAttention:
    """Gives every attention of `transformer` its processor; the cross-attentions share the one that is returned."""
    own, cross = TrainingAttention(), TrainingAttention()
    for block in transformer.blocks:
        assert isinstance(block, WanTransformerBlock)
        block.attn1.set_processor(cast("AttentionProcessor", own))
        block.attn2.set_processor(cast("AttentionProcessor", cross))
    return cross
