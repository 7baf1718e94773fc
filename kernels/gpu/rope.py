"""RMS norm of queries and keys across all heads, fused with their rotation in three dimensions.

One program holds a token's whole row of D = H E values as pairs, so that a row is read once and written once. Rows of q
come first in the grid, then those of k.
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def qk_norm_rope_forward(
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_out_ptr,
    k_out_ptr,
    q_rows,
    tokens,
    width,
    half_head,
    angle_token,
    angle_pair,
    eps,
    ROPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Both outputs; BLOCK pairs a row."""
    row = tl.program_id(0)
    pair = tl.arange(0, BLOCK)
    inside = pair * 2 < width
    if row < q_rows:
        x_ptr, weight_ptr, out_ptr = q_ptr, q_weight_ptr, q_out_ptr
    else:
        x_ptr, weight_ptr, out_ptr = k_ptr, k_weight_ptr, k_out_ptr
        row = row - q_rows
    # One load of neighbouring values, parted in registers: two loads of every other one would fetch each line twice.
    both = tl.arange(0, 2 * BLOCK)
    x = tl.load(x_ptr + row.to(tl.int64) * width + both, mask=both < width, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + both, mask=both < width, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * weight
    if ROPE:
        first, second = tl.split(tl.reshape(y, [BLOCK, 2]))
        at = (row % tokens).to(tl.int64) * angle_token + pair % half_head * angle_pair
        c = tl.load(cos_ptr + at, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(sin_ptr + at, mask=inside, other=0.0).to(tl.float32)
        y = tl.reshape(tl.join(first * c - second * s, first * s + second * c), [2 * BLOCK])
    out = out_ptr + row.to(tl.int64) * width + both
    tl.store(out, y.to(out_ptr.dtype.element_ty), mask=both < width)
