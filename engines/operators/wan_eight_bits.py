"""Wan's blocks with their products of tokens in 8 bits, weights and activations: int8 or fp8 e4m3.

Made from diffusers' blocks, whose weights are rounded; for inference.
B batch, L tokens, M tokens of the prompt, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel, WanTransformerBlock
from torch import nn

from engines.errors import InvalidModel
from engines.operators.wan import Angles, check_diffusers, checked_block, heads_attended, modulations
from kernels.quantized import Quantized, quantize_rows, quantized_linear, quantized_norm

FORMATS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def use_eight_bits(transformer: WanTransformer3DModel, form: Literal["int8", "fp8"]) -> None:
    """Replaces the blocks of `transformer` by ones that multiply in 8 bits; their weights have other names then.

    Whole blocks alone: what comes before and after them, and the prompt's keys and values, keep their dtype.
    InvalidModel for a diffusers or a block that is not known, ValueError for another format.
    """
    check_diffusers()
    if form not in FORMATS:
        raise ValueError(f"{form!r} is no 8-bit format; use {' or '.join(FORMATS)}")
    # All are looked at before any is replaced, so that a refusal leaves the model as it was; they are made one by one,
    # for the weights in both precisions would be half as much memory again.
    blocks = [checked_block(block, index) for index, block in enumerate(transformer.blocks)]
    for index, block in enumerate(blocks):
        _check_linears(block, index)
    for index, block in enumerate(blocks):
        transformer.blocks[index] = EightBitBlock(block, FORMATS[form]).train(block.training)


_LINEARS = (
    *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)


def _check_linears(block: WanTransformerBlock, index: int) -> None:
    for name in _LINEARS:
        layer = block.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise InvalidModel(
                f"{name} of block {index} is a {type(layer).__name__}; only a plain Linear is rounded to 8 bits "
                "(a LoRA is merged first)"
            )


class EightBitBlock(nn.Module):
    """A block whose tokens are multiplied in 8 bits, from one norm to the next residual; see `kernels.quantized`.

    Norms round their rows as they make them, and products add the gated residual as they end. Keys and values of the
    prompt, a few hundred rows, keep their dtype.
    """

    def __init__(self, block: WanTransformerBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attn1, self.attn2 = EightBitAttention(block.attn1, dtype), EightBitAttention(block.attn2, dtype)
        self.widen = EightBitLinear(cast(nn.Linear, block.ffn.net[0].get_submodule("proj")), dtype)
        self.narrow = EightBitLinear(cast(nn.Linear, block.ffn.net[2]), dtype)
        self.scale_shift_table = block.scale_shift_table
        self.dtype = dtype

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, rotary_emb: Angles
    ) -> torch.Tensor:
        """As `OperatorBlock.forward`."""
        x, text = hidden_states, encoder_hidden_states
        shift, scale, gate, cross_shift, cross_scale, cross_gate = modulations(self.scale_shift_table, temb, len(x))
        rounded = quantized_norm(x, self.dtype, scale=scale, shift=shift, eps=self.norm1.eps)
        x = self.attn1(rounded, None, rotary_emb, residual=x, gate=gate)
        affine = {"weight": self.norm2.weight, "bias": self.norm2.bias, "eps": self.norm2.eps}
        x = self.attn2(quantized_norm(x, self.dtype, **affine), text, None, residual=x, gate=None)
        rounded = quantized_norm(x, self.dtype, scale=cross_scale, shift=cross_shift, eps=self.norm3.eps)
        wide = self.widen(rounded, x.dtype, gelu=True)
        return self.narrow(quantize_rows(wide, self.dtype), x.dtype, residual=x, gate=cross_gate)


class EightBitAttention(nn.Module):
    """Multi-head attention whose products of tokens are W8A8; attention itself keeps the dtype of the model."""

    def __init__(self, attention: WanAttention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.dtype = attention.heads, dtype
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_q, self.to_out = (
            EightBitLinear(attention.to_q, dtype),
            EightBitLinear(cast(nn.Linear, attention.to_out[0]), dtype),
        )
        crosses = attention.is_cross_attention
        self.to_k = attention.to_k if crosses else EightBitLinear(attention.to_k, dtype)
        self.to_v = attention.to_v if crosses else EightBitLinear(attention.to_v, dtype)

    def forward(
        self,
        rounded: Quantized,
        text: torch.Tensor | None,
        angles: Angles | None,
        *,
        residual: torch.Tensor,
        gate: torch.Tensor | None,
    ) -> torch.Tensor:
        """residual + gate * attention of `rounded` [B, L, D] to itself, or to `text`; [B, L, D]."""
        dtype = residual.dtype
        key, value = ((p(rounded, dtype) if text is None else p(text)) for p in (self.to_k, self.to_v))
        out = heads_attended(self, self.to_q(rounded, dtype), key, value, angles)
        return self.to_out(quantize_rows(out, self.dtype), dtype, residual=residual, gate=gate)


class EightBitLinear(nn.Module):
    """A linear layer by its rounded weight [N, K], with a scale for each output."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        rounded = quantize_rows(linear.weight.detach(), dtype)
        self.register_buffer("weight", rounded.values)
        self.register_buffer("weight_scales", rounded.scales)
        self.bias = linear.bias

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> EightBitLinear:
        """Moves follow, casts do not: rounded values and their scales mean nothing in another dtype."""
        kept = self.get_buffer("weight"), self.get_buffer("weight_scales")
        super()._apply(fn, recurse)
        for name, before in zip(("weight", "weight_scales"), kept, strict=True):
            after = self.get_buffer(name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def forward(
        self,
        x: Quantized,
        dtype: torch.dtype,
        *,
        gelu: bool = False,
        residual: torch.Tensor | None = None,
        gate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `kernels.quantized.quantized_linear`."""
        weight = Quantized(self.get_buffer("weight"), self.get_buffer("weight_scales"))
        return quantized_linear(x, weight, self.bias, dtype=dtype, gelu=gelu, residual=residual, gate=gate)
