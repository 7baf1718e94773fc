"""Cross-attention over short text as if it were padded to 512 tokens, exactly, at a tenth of the cost.

Wan attends to 512 text tokens of which all but a prompt's own are zeros. Zero tokens are all equal, so m of them count
as one whose logit is raised by log(m): softmax weights, and so the output, are the same to rounding. Training uses it;
weights trained so are used by any pipeline that pads with zeros, as stock diffusers does.
Legend: B batch, K text columns kept, L image tokens, C text width, N heads.
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


class FoldedPaddingProcessor:
    """Wan's cross-attention with a logit bias that is set before each forward."""

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
        assert encoder_hidden_states is not None and attention_mask is None and rotary_emb is None
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        key = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        value = attn.to_v(encoder_hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        bias = None if self.bias is None else self.bias.to(query.dtype)
        out = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value, attn_mask=bias)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2, 3)))


def fold_padding(transformer: WanTransformer3DModel) -> FoldedPaddingProcessor:
    """Gives every cross-attention of `transformer` one shared processor, and returns it to have its bias set."""
    processor = FoldedPaddingProcessor()
    for block in transformer.blocks:
        assert isinstance(block, WanTransformerBlock)
        block.attn2.set_processor(cast("AttentionProcessor", processor))
    return processor
