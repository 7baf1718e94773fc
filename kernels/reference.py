"""The operators in plain torch: the truth that every twin is held to, and what runs where there is no GPU.

All compute in fp32 (fp64 for fp64 inputs) and give back the dtype of their first argument, as diffusers does.
Legend: B batch, L tokens, D width, H heads, E width of a head, R rows. A modulation is [B, 1, D], or [B, L, D] where
every token has its own time (Wan 2.2 ti2v).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normalised(x: Tensor, eps: float, *, rms: bool) -> Tensor:
    """Over the last dimension: (x - mean) / sqrt(var + eps) (Ba et al., arXiv 1607.06450), or for `rms`
    x / sqrt(mean(x^2) + eps) (Zhang and Sennrich, arXiv 1910.07467). In fp32 at least.
    """
    wide = _wide(x)
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
    wide = _wide(branch)
    return (_wide(x) + (wide if gate is None else wide * gate)).to(x.dtype)


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
    g, wide = _wide(gradient), _wide(x)
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
    first, second = _wide(x).unflatten(-1, (-1, 2)).unbind(-1)
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


def guided(conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None) -> Tensor:
    """u + g (c - u) with a g for each row [B]: classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    Latents are [B, N], all values of a film in a row. Without `unconditional` it is c.
    """
    c = _wide(conditional)
    if unconditional is None or guidance is None:
        return c
    u = _wide(unconditional)
    return u + guidance[:, None].to(u.dtype) * (c - u)


def euler_step(
    x: Tensor, conditional: Tensor, unconditional: Tensor | None, guidance: Tensor | None, change: float
) -> Tensor:
    """x + change * v with the guided velocity v; `change` is sigma' - sigma. [B, N], in fp32."""
    return _wide(x) + change * guided(conditional, unconditional, guidance)


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
    clean = _wide(x) - s * guided(conditional, unconditional, guidance)
    corrects = any((c0, c1, c2, c3))
    here = c0 * _wide(before) + c1 * _wide(newest) + c2 * _wide(older) + c3 * clean if corrects else _wide(x).clone()
    return clean, here, p0 * here + p1 * clean + p2 * _wide(newest)


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
    mean = keep * _wide(x) + pull * guided(conditional, unconditional, guidance)
    wide = _wide(noise)
    count = noise.shape[1]
    log_probability = -0.5 * wide.square().sum(1) - count * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    return mean + deviation * wide, log_probability


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
