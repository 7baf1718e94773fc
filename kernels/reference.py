"""The operators in plain torch: the truth that every twin is held to, and what runs where there is no GPU.

All compute in fp32 (fp64 for fp64 inputs) and give back the dtype of their first argument, as diffusers does.
Legend: B batch, L tokens, D width, H heads, E width of a head, R rows. A modulation is [B, 1, D], or [B, L, D] where
every token has its own time (Wan 2.2 ti2v).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.masks import Mask

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The 8-bit formats, and the largest number that each is used for."""


def normalised(x: Tensor, eps: float, *, rms: bool) -> Tensor:
    """Over the last dimension: (x - mean) / sqrt(var + eps) (Ba et al., arXiv 1607.06450), or for `rms`
    x / sqrt(mean(x^2) + eps) (Zhang and Sennrich, arXiv 1910.07467). In fp32 at least.
    """
    wide = wide_of(x)
    if not rms:
        wide = wide - wide.mean(-1, keepdim=True)
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)


def modulated_norm(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
) -> Tensor:
    """norm(x) * weight + bias, then * (1 + scale) + shift, [B, L, D]: adaLN (Peebles and Xie, arXiv 2212.09748)."""
    y = normalised(x, eps, rms=rms)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    if scale is not None:
        y = y * (1 + scale)
    if shift is not None:
        y = y + shift
    return y.to(x.dtype)


def gated_residual(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """x + gate * branch, [B, L, D]; without a gate x + branch."""
    wide = wide_of(branch)
    return (wide_of(x) + (wide if gate is None else wide * gate)).to(x.dtype)


def modulated_norm_gradients(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of `modulated_norm` for x, scale, shift, weight and bias, in fp32; the last four per token [B, L, D], not summed.

    With m = weight * (1 + scale), n the normalised x and r its reciprocal deviation, x gets
    r * (g m - mean(g m) - n mean(g m n)), without the first mean for `rms`.
    """
    g, wide = wide_of(gradient), wide_of(x)
    centred = wide if rms else wide - wide.mean(-1, keepdim=True)
    r = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    n = centred * r
    factor = 1.0 if scale is None else 1 + scale
    inner = n if weight is None else n * weight
    if bias is not None:
        inner = inner + bias
    gm = g * factor if weight is None else g * factor * weight
    dx = gm - n * (gm * n).mean(-1, keepdim=True)
    if not rms:
        dx = dx - gm.mean(-1, keepdim=True)
    return dx * r, g * inner, g, g * factor * n, g * factor


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE (Su et al., arXiv 2104.09864): of x [B, L, H, E] the pair (x[2i], x[2i + 1]) is turned by its angle.

    cos and sin are [L, E / 2]; in three dimensions their first columns belong to time, then to rows, then to columns.
    """
    first, second = wide_of(x).unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[:, None], sin[:, None]
    return torch.stack((first * c - second * s, first * s + second * c), -1).flatten(-2).to(x.dtype)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """RMS norm across all heads of q and k [B, L, H E] with weights [H E], then `rotated`; both [B, L, H, E].

    Without angles (cross-attention) the norm alone. q and k may differ in L then.
    """
    out = []
    for x, weight in ((q, q_weight), (k, k_weight)):
        y = (normalised(x, eps, rms=True) * weight).unflatten(2, (heads, -1))
        out.append((y if cos is None or sin is None else rotated(y, cos, sin)).to(x.dtype))
    return out[0], out[1]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """softmax(scale q k^T) v for each head, over the keys that `mask` shows (Vaswani et al., arXiv 1706.03762).

    q is [B, L, H, E], k and v are [B, M, H, E]; the result is [B, L, H, E].
    """
    p = attention_weights(q, k, mask, scale, slice(None))
    return torch.einsum("bhlm,bmhe->blhe", p, wide_of(v)).to(q.dtype)


def attention_weights(q: Tensor, k: Tensor, mask: Mask | None, scale: float, rows: slice) -> Tensor:
    """The softmax of the queries `rows`, [B, H, rows, M], in fp32 at least."""
    scores = scale * torch.einsum("blhe,bmhe->bhlm", wide_of(q[:, rows]), wide_of(k))
    if mask is not None:
        queries, keys = q.shape[1], k.shape[1]
        places = torch.arange(queries, device=q.device)[rows], torch.arange(keys, device=q.device)
        scores = scores.masked_fill(~mask.visible(*places, queries, keys), -math.inf)
    return scores.softmax(-1)


def quantized_blocks(x: Tensor, block: int, segment: int | None) -> tuple[Tensor, Tensor]:
    """x [B, L, H, E] in int8, and scales [B, H, blocks]: a head's `block` tokens share s = max |x| / 127.

    Rounded half away from zero. Blocks are counted anew in each `segment` of tokens; None is one segment of all.
    """
    wide, (batch, tokens, heads, _) = wide_of(x), x.shape
    owner = block_of(tokens, block, segment, x.device)
    largest = wide.abs().amax(-1).mT  # [B, H, L]
    count = int(owner[-1]) + 1
    everywhere = owner.expand(batch, heads, tokens)
    scales = largest.new_zeros(batch, heads, count).scatter_reduce_(2, everywhere, largest, "amax") / 127
    ratio = wide / scales[:, :, owner].mT.clamp(min=1e-30)[..., None]
    return torch.trunc(ratio + 0.5 * ratio.sign()).to(torch.int8), scales


def block_of(tokens: int, block: int, segment: int | None, device: torch.device) -> Tensor:
    """[L], the number of each token's block; see `quantized_blocks`."""
    place, segment = torch.arange(tokens, device=device), segment or tokens
    return place // segment * -(-segment // block) + place % segment // block


def int8_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float, blocks: tuple[int, int], segment: int | None
) -> Tensor:
    """`attention` with q k^T of int8, as SageAttention has it (Zhang et al., arXiv 2410.02367).

    The mean of all keys is taken from each of them first: it adds one number to all scores of a query, which the
    softmax forgets, and without it keys need fewer bits. `blocks` are the tokens of q and of k that share a scale.
    """
    smooth = wide_of(k) - wide_of(k).mean(1, keepdim=True)
    turned = []
    for x, block in ((q, blocks[0]), (smooth, blocks[1])):
        whole, scales = quantized_blocks(x, block, segment)
        owner = block_of(x.shape[1], block, segment, x.device)
        turned.append(whole.to(scales.dtype) * scales[:, :, owner].mT[..., None])
    return attention(turned[0], turned[1], v, mask, scale).to(q.dtype)


def quantized_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [..., K] in int8 or float8_e4m3fn, and scales [...]: a row's s = max |x| / 127 or / 448, and round(x / s).

    int8 is rounded half away from zero, fp8 half to even. Of a weight [N, K] the rows are its output channels.
    """
    wide = wide_of(x)
    largest = LARGEST[dtype]
    scales = wide.abs().amax(-1) / largest
    ratio = wide / scales.clamp(min=1e-30)[..., None]
    whole = torch.trunc(ratio + 0.5 * ratio.sign()) if dtype == torch.int8 else ratio.clamp(-largest, largest)
    # By way of fp32: from fp64 an fp8 would be rounded but once, and a GPU never sees fp64.
    return whole.float().to(dtype), scales


def quantized_linear(
    x: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gate: Tensor | None,
    dtype: torch.dtype,
    *,
    gelu: bool,
) -> Tensor:
    """residual + gate * gelu(x w^T s_x s_w + bias), [B, L, N] in `dtype`; W8A8 (Xiao et al., arXiv 2211.10438).

    x [B, L, K] and scales [B, L], weight [N, K] and scales [N]; what is None or not asked for is left out. GELU is by
    tanh, as Wan has it.
    """
    wide = torch.promote_types(x_scales.dtype, torch.float32)
    y = (x.to(wide) @ weight.to(wide).T) * x_scales[..., None] * weight_scales
    if bias is not None:
        y = y + bias
    if gelu:
        y = torch.nn.functional.gelu(y, approximate="tanh")
    if gate is not None:
        y = y * gate
    return (y if residual is None else wide_of(residual) + y).to(dtype)


def causal_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, row_padding: int, column_padding: int
) -> Tensor:
    """Convolution of x [B, C, T, H, W] by [O, C, t, h, w] that sees t - 1 frames before each, and none after.

    They are the last of `cache` [B, C, P, H, W] at the beginning, and zeros where it has too few; as in the VAE of Wan
    (arXiv 2503.20314, section 4.1), whose chunks of frames so give what the whole film would.
    """
    before = weight.shape[2] - 1
    if cache is not None and before:
        x = torch.cat([cache, x], dim=2)
        before -= cache.shape[2]
    padded = torch.nn.functional.pad(x, (column_padding, column_padding, row_padding, row_padding, before, 0))
    return torch.nn.functional.conv3d(padded, weight, bias)


def guided(conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None) -> Tensor:
    """u + g (c - u) with a g for each row [B]: classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    Latents are [B, N], all values of a film in a row. Without `unconditional` it is c.
    """
    c = wide_of(conditional)
    if unconditional is None or guidance is None:
        return c
    u = wide_of(unconditional)
    return u + guidance[:, None].to(u.dtype) * (c - u)


def euler_step(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None, change: float
) -> Tensor:
    """x + change * v with the guided velocity v; `change` is sigma' - sigma. [B, N], in fp32."""
    return wide_of(x) + change * guided(conditional, unconditional, guidance)


def unipc_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    before: Tensor,
    newest: Tensor,
    older: Tensor,
    coefficients: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of UniPC of order 2 (Zhao et al., arXiv 2302.04867), [B, N] in fp32: clean, here and next.

    clean = x - s v is the model's x0; here = c0 before + c1 newest + c2 older + c3 clean corrects the latents that the
    step stands on by it (c0 to c3 all zero: here = x); next = p0 here + p1 clean + p2 newest predicts. `newest` and
    `older` are the x0 of the last two steps, `before` is where the last step stood; `coefficients` are
    (s, c0, c1, c2, c3, p0, p1, p2).
    """
    s, c0, c1, c2, c3, p0, p1, p2 = coefficients
    clean = wide_of(x) - s * guided(conditional, unconditional, guidance)
    corrects = any((c0, c1, c2, c3))
    here = (
        c0 * wide_of(before) + c1 * wide_of(newest) + c2 * wide_of(older) + c3 * clean
        if corrects
        else wide_of(x).clone()
    )
    return clean, here, p0 * here + p1 * clean + p2 * wide_of(newest)


def stochastic_step(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    noise: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> tuple[Tensor, Tensor]:
    """A draw from N(keep x + pull v, deviation^2), [B, N], and its log-probability [B], in fp32.

    The stochastic samplers of Flow-GRPO (arXiv 2505.05470) and its kin are this with coefficients of their own. Of a
    draw mean + deviation * noise the log-probability is -|noise|^2 / 2 - N log(deviation) - N log(2 pi) / 2.
    """
    mean = keep * wide_of(x) + pull * guided(conditional, unconditional, guidance)
    wide = wide_of(noise)
    return mean + deviation * wide, -0.5 * wide.square().sum(1) - log_normalizer(noise.shape[1], deviation)


def log_normalizer(count: int, deviation: float) -> float:
    """N log(deviation) + N log(2 pi) / 2, which a normal density of N values is divided by, as a logarithm."""
    return count * (math.log(deviation) + 0.5 * math.log(2 * math.pi))


def stochastic_score(
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    taken: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> Tensor:
    """log N(taken; keep x + pull v, deviation^2) of each film, [B].

    With r = (taken - keep x - pull v) / deviation it is -|r|^2 / 2 - N log(deviation) - N log(2 pi) / 2.
    """
    residual = (wide_of(taken) - keep * wide_of(x) - pull * guided(conditional, unconditional, guidance)) / deviation
    return -0.5 * residual.square().sum(1) - log_normalizer(x.shape[1], deviation)


def stochastic_score_gradients(
    gradient: Tensor,
    x: Tensor,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: Tensor | None,
    taken: Tensor,
    keep: float,
    pull: float,
    deviation: float,
) -> tuple[Tensor, Tensor | None]:
    """Of both velocities: pull r / deviation is that of v, of which the conditional has w and the other 1 - w."""
    residual = (wide_of(taken) - keep * wide_of(x) - pull * guided(conditional, unconditional, guidance)) / deviation
    of_v = gradient[:, None] * (pull / deviation) * residual
    if unconditional is None or guidance is None:
        return of_v.to(conditional.dtype), None
    w = wide_of(guidance)[:, None]
    return (w * of_v).to(conditional.dtype), ((1 - w) * of_v).to(unconditional.dtype)


def wide_of(x: Tensor) -> Tensor:
    """In the precision that formulas are computed in: fp64 stays, all else is fp32."""
    return x if x.dtype == torch.float64 else x.float()
