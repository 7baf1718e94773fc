"""Our operators in diffusers' Wan transformer: fused norms, modulation and gates, heads made ready at once, attention.

A block is taken apart and put together anew around the same weights under the same names, so that a state dict fits
either; nothing of diffusers is patched. B batch, L tokens, D width, H heads.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Protocol

import torch
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanTransformer3DModel,
    WanTransformerBlock,
)
from torch import nn

from engines.errors import InvalidModel
from engines.operators.wan_prompt import PromptSlot, attended_to_prompts, eps_of
from kernels.attention import attention
from kernels.modulated_norm import gated_norm, modulated_norm
from kernels.residual import gated_residual
from kernels.rope3d import qk_norm_rope

# A block's forward is written out here as these versions have it; another may compute something else.
KNOWN_DIFFUSERS = ("0.42.",)
Angles = tuple[torch.Tensor, torch.Tensor]


def check_diffusers() -> None:
    """InvalidModel when diffusers' version is not one whose modules are known."""
    installed = version("diffusers")
    if not installed.startswith(KNOWN_DIFFUSERS):
        raise InvalidModel(
            f"diffusers {installed} is installed, and the operators know the Wan modules of "
            f"{', '.join(f'{v}x' for v in KNOWN_DIFFUSERS)}; install one of those or run without operators"
        )


def use_operators(*transformers: WanTransformer3DModel) -> tuple[PromptSlot, ...]:
    """Puts our operators into every block of all `transformers`, in place; gives back a slot for prompts of each.

    While a slot holds prompts, the blocks attend to those and not to the text that the transformer is called with.

    InvalidModel when diffusers' version is not one whose blocks are known, or a block has parts that ours has not.
    """
    check_diffusers()
    # All are looked at before any is replaced, so that a refusal leaves the models as they were.
    known = [
        (transformer, index, checked_block(block, index))
        for transformer in transformers
        for index, block in enumerate(transformer.blocks)
    ]
    slots = {id(transformer): PromptSlot() for transformer in transformers}
    for transformer, index, block in known:
        made = OperatorBlock(block, index=index, slot=slots[id(transformer)])
        transformer.blocks[index] = made.train(block.training)
    return tuple(slots.values())


def checked_block(block: nn.Module, index: int) -> WanTransformerBlock:
    """`block`, if it is one that operators are known for; InvalidModel tells what it is otherwise."""
    if not isinstance(block, WanTransformerBlock):
        raise InvalidModel(f"block {index} is a {type(block).__name__}; operators are known for WanTransformerBlock")
    if block.attn2.add_k_proj is not None:
        raise InvalidModel(f"block {index} attends to an image as well; operators are known for text to video")
    if not isinstance(block.norm2, FP32LayerNorm):
        raise InvalidModel(f"block {index} has no norm before its cross-attention; operators need cross_attn_norm")
    for name, processor in (("attn1", block.attn1.processor), ("attn2", block.attn2.processor)):
        if type(processor) is not WanAttnProcessor or getattr(processor, "_attention_backend", None) is not None:
            raise InvalidModel(
                f"{name} of block {index} has a processor or an attention backend of its own, which operators would "
                "drop; set it back to WanAttnProcessor() first"
            )
    return block


class OperatorBlock(nn.Module):
    """A `WanTransformerBlock` by our operators, sharing the weights of the one that it is made from."""

    def __init__(self, block: WanTransformerBlock, *, index: int, slot: PromptSlot) -> None:
        super().__init__()
        self._index, self._slot = index, slot
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.attn2, self.norm2 = block.attn2, block.norm2
        self.ffn, self.norm3 = block.ffn, block.norm3
        self.scale_shift_table = block.scale_shift_table

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, rotary_emb: Angles
    ) -> torch.Tensor:
        """[B, L, D] to [B, L, D]; `temb` is [B, 6, D], or [B, L, 6, D] where every token has its own time."""
        x = hidden_states
        shift, scale, gate, cross_shift, cross_scale, cross_gate = modulations(self.scale_shift_table, temb, len(x))
        affine = {"weight": self.norm2.weight, "bias": self.norm2.bias, "eps": self.norm2.eps}

        normed = modulated_norm(x, scale=scale, shift=shift, eps=self.norm1.eps)
        x, normed = gated_norm(x, attended(self.attn1, normed, normed, rotary_emb), gate, **affine)
        if self._slot.rows is None:
            branch = attended(self.attn2, normed, encoder_hidden_states, None)
        else:
            branch = attended_to_prompts(self.attn2, normed, self._slot.rows, self._index)
        x, normed = gated_norm(x, branch, None, scale=cross_scale, shift=cross_shift, eps=self.norm3.eps)
        return gated_residual(x, self.ffn(normed), cross_gate)


def modulations(table: torch.Tensor, temb: torch.Tensor, batch: int) -> tuple[torch.Tensor, ...]:
    """Shift, scale and gate before self-attention, and before the feed-forward: six of [B, 1, D], or [B, L, D]."""
    each = (table.unsqueeze(0) if temb.ndim == 4 else table) + temb.float()
    parts = [m.squeeze(-2) if temb.ndim == 4 else m for m in each.chunk(6, dim=-2)]
    return tuple(m.expand(batch, -1, -1) for m in parts)


def attended(module: WanAttention, x: torch.Tensor, source: torch.Tensor, angles: Angles | None) -> torch.Tensor:
    """Multi-head attention of `x` [B, L, D] to `source`, queries and keys normalised and turned by one operator."""
    out = heads_attended(module, module.to_q(x), module.to_k(source), module.to_v(source), angles)
    return module.to_out[1](module.to_out[0](out))


class Heads(Protocol):
    """An attention's heads, and the norms of its queries and keys."""

    heads: int
    norm_q: nn.RMSNorm
    norm_k: nn.RMSNorm


def heads_attended(
    module: Heads, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, angles: Angles | None
) -> torch.Tensor:
    """[B, L, D] of a query [B, L, D], key and value [B, M, D], with the norms and heads of `module`."""
    cos, sin = (None, None) if angles is None else (angles[0][0, :, 0, 0::2], angles[1][0, :, 0, 1::2])
    query, key = qk_norm_rope(
        query,
        key,
        module.norm_q.weight,
        module.norm_k.weight,
        heads=module.heads,
        cos=cos,
        sin=sin,
        eps=eps_of(module.norm_q),
    )
    return attention(query, key, value.unflatten(2, (module.heads, -1))).flatten(2)
