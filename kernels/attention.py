"""Attention under a mask of chunks or tiles, exact or with scores of int8; see `reference.attention` for the formulas.

Legend: B batch, L queries, M keys, H heads, E width of a head. All tensors are [B, tokens, H, E], as `qk_norm_rope`
gives them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import reference
from kernels.attention_libraries import LIBRARIES, default_for, sdpa
from kernels.configurations import Configuration, configuration_of, narrowed
from kernels.dispatch import Implementation, OperatorUnavailableError, asked, chosen, is_twin
from kernels.launching import launch, next_power_of_2
from kernels.masks import Mask, SlidingTile, code_of, mask_of

_GRADIENT_ROWS = 512  # queries whose weights the backward holds at a time
_LOG2_E = math.log2(math.e)
_MOST_WIDTH = 256


@torch.library.custom_op("rushes::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, mask: list[int], scale: float) -> Tensor:
    rule = mask_of(mask)
    way = chosen("attention", q, default_for(q, masked=rule is not None))
    if is_twin(way):
        return _launch(q, k, v, rule, scale, None)
    if way is Implementation.SDPA:
        return sdpa(q, k, v, rule, scale)
    library = LIBRARIES.get(way)
    if library is None:
        return reference.attention(q, k, v, rule, scale).contiguous()
    if rule is not None:
        raise OperatorUnavailableError(
            f"{way} knows no {type(rule).__name__} mask; use triton or sdpa for this attention"
        )
    return library(q, k, v, scale).contiguous()


@torch.library.custom_op("rushes::int8_attention", mutates_args=())
def _int8_attention(q: Tensor, k: Tensor, v: Tensor, mask: list[int], scale: float) -> Tensor:
    rule = mask_of(mask)
    segment = math.prod(rule.tile) if isinstance(rule, SlidingTile) else None
    # The reference rounds in the same blocks, or the two would not be the same attention.
    blocks = _configuration("int8_attention", q).blocks
    if not is_twin(chosen("int8_attention", q)):
        sizes = (blocks["BLOCK_Q"], blocks["BLOCK_K"])
        return reference.int8_attention(q, k, v, rule, scale, sizes, segment).contiguous()
    q8, q_scales = _quantized(q, None, blocks["BLOCK_Q"], segment)
    k8, k_scales = _quantized(k, k.mean(1, dtype=torch.float32), blocks["BLOCK_K"], segment)
    return _launch(q8, k8, v, rule, scale, (q_scales, k_scales), out=torch.empty_like(q))


@_attention.register_fake
@_int8_attention.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(q)


def attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, scale: float | None = None) -> Tensor:
    """[B, L, H, E] of q [B, L, H, E], k and v [B, M, H, E]; `scale` is 1 / sqrt(E) unless given.

    ValueError for shapes that do not fit one another or the mask.
    """
    scale = _checked(q, k, v, mask, scale)
    needs_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    # Without a mask torch's own attention is trained through: it keeps what its backward needs, and ours would not. An
    # exported graph is for inference, whatever the mode it is made in, and gets our operator.
    if mask is None and needs_gradients and asked() is None and not torch.compiler.is_exporting():
        if not torch.compiler.is_compiling():
            chosen("attention", q, Implementation.SDPA)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    return _attention(*_rows(q, k, v), code_of(mask), scale)


def int8_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, scale: float | None = None) -> Tensor:
    """`attention` with q and k rounded to int8 by blocks, keys less their mean first. For inference: no gradients."""
    scale = _checked(q, k, v, mask, scale)
    return _int8_attention(*_rows(q, k, v), code_of(mask), scale)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  torch's signature
    q, k, v, ctx.mask, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """With weights P: dV = P^T dO and dS = P (dO V^T - rowsum(P dO V^T)), some rows of P at a time."""
    q, k, v = ctx.saved_tensors
    mask, scale = mask_of(ctx.mask), ctx.scale
    dq = torch.empty_like(q)
    dk, dv = (torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (k, v))
    wide_q, wide_k, wide_v, wide_g = (x.to(dk.dtype) for x in (q, k, v, gradient))
    for first in range(0, q.shape[1], _GRADIENT_ROWS):
        rows = slice(first, first + _GRADIENT_ROWS)
        p = reference.attention_weights(q, k, mask, scale, rows)
        dv += torch.einsum("bhlm,blhe->bmhe", p, wide_g[:, rows])
        dp = torch.einsum("blhe,bmhe->bhlm", wide_g[:, rows], wide_v)
        ds = scale * p * (dp - (dp * p).sum(-1, keepdim=True))
        dq[:, rows] = torch.einsum("bhlm,bmhe->blhe", ds, wide_k).to(q.dtype)
        dk += torch.einsum("bhlm,blhe->bmhe", ds, wide_q[:, rows])
    return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


_attention.register_autograd(_gradients, setup_context=_keep)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask | None,
    scale: float,
    scales: tuple[Tensor, Tensor] | None,
    out: Tensor | None = None,
) -> Tensor:
    from kernels.gpu.attention import attention_forward  # noqa: PLC0415  it loads Triton

    batch, queries, heads, width = q.shape
    out = torch.empty_like(q) if out is None else out
    kind, numbers = _mask_arguments(mask)
    q_scales, k_scales = scales or (q, q)
    configuration = _configuration("attention" if scales is None else "int8_attention", v)
    segment = math.prod(mask.tile) if isinstance(mask, SlidingTile) else queries
    launch(
        attention_forward,
        (_blocks(queries, configuration.blocks["BLOCK_Q"], segment), heads, batch),
        *(q, k, v, q_scales, k_scales, out),
        queries,
        k.shape[1],
        heads,
        width,
        scale * _LOG2_E,
        *numbers,
        MASK=kind,
        INT8=scales is not None,
        # A product of int8 sums over 32 values at least, one of floats over 16.
        WIDTH=max(16 if scales is None else 32, next_power_of_2(width)),
        **configuration.blocks,
        warps=configuration.warps,
        stages=configuration.stages,
    )
    return out


def _quantized(x: Tensor, mean: Tensor | None, block: int, segment: int | None) -> tuple[Tensor, Tensor]:
    from kernels.gpu.attention import quantize_blocks  # noqa: PLC0415  it loads Triton

    batch, tokens, heads, width = x.shape
    segment = segment or tokens
    count = _blocks(tokens, block, segment)
    out = torch.empty_like(x, dtype=torch.int8)
    scales = x.new_empty(batch, heads, count, dtype=torch.float32)
    launch(
        quantize_blocks,
        (count, heads, batch),
        *(x, x if mean is None else mean, out, scales),
        tokens,
        heads,
        width,
        segment,
        MEAN=mean is not None,
        WIDTH=next_power_of_2(width),
        BLOCK=block,
        warps=4,
    )
    return out, scales


def _configuration(operator: str, x: Tensor) -> Configuration:
    """What `operator` runs with on the device of x [B, L, H, E], its blocks cut to what wide heads leave room for."""
    return narrowed(configuration_of(operator, x), next_power_of_2(x.shape[-1]) * x.element_size())


def _mask_arguments(mask: Mask | None) -> tuple[int, tuple[int, ...]]:
    """The kernel's number of a mask's kind, and its nine numbers."""
    if mask is None:
        return 0, (1,) * 9
    if isinstance(mask, SlidingTile):
        return 2, (math.prod(mask.tile), 0, 0, *mask.tiles, *mask.window)
    return 1, (mask.chunk, mask.window, mask.sink, *(1,) * 6)


def _blocks(tokens: int, block: int, segment: int) -> int:
    return -(-tokens // segment) * -(-segment // block)


def _rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in tensors)


def _checked(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float | None) -> float:
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4 or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise ValueError(
            f"q is {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)}; "
            "all must be [batch, tokens, heads, width], k and v alike, and differ from q in tokens alone"
        )
    if not q.dtype == k.dtype == v.dtype or {q.device, k.device} != {v.device}:
        kinds = ", ".join(f"{name} of {x.dtype} on {x.device}" for name, x in (("q", q), ("k", k), ("v", v)))
        raise ValueError(f"{kinds}; attention needs one dtype and one device")
    if q.shape[-1] > _MOST_WIDTH:
        raise ValueError(f"a head of {q.shape[-1]} values is too wide; attention takes up to {_MOST_WIDTH}")
    if mask is not None:
        mask.check(q.shape[1], k.shape[1])
    return q.shape[-1] ** -0.5 if scale is None else scale
