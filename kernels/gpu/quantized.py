"""Rows rounded to 8 bits, and the matrix product of such rows with 8-bit weights, with what follows it done at once.

int8 sums in int32 exactly; fp8 e4m3 sums in fp32. Scales are applied to the finished sum, in registers.
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

import triton
import triton.language as tl

_LARGEST_INT8, _LARGEST_FP8 = tl.constexpr(127.0), tl.constexpr(448.0)
_GELU = tl.constexpr(1.5957691216057308)  # 2 sqrt(2 / pi)


@triton.jit
def row_in_8_bits(y, dtype: tl.constexpr):
    """A row in int8 (half away from zero) or fp8 e4m3 (half to even), and its scale: max |y| by the largest number.

    Divided as IEEE 754 has it: of inputs with few bits many ratios lie half way, which a GPU's quick division misses.
    """
    largest = _LARGEST_INT8 if dtype == tl.int8 else _LARGEST_FP8
    scale = tl.div_rn(tl.max(tl.abs(y), 0), largest)
    ratio = tl.div_rn(y, tl.maximum(scale, 1e-30))
    if dtype == tl.int8:
        # Conversion to an integer cuts off.
        ratio = ratio + 0.5 * tl.where(ratio < 0, -1.0, tl.where(ratio > 0, 1.0, 0.0))
    else:
        ratio = rounded_to_e4m3(tl.minimum(tl.maximum(ratio, -largest), largest))
    return ratio.to(dtype), scale


@triton.jit
def rounded_to_e4m3(x):
    """fp32 at the nearest number that fp8 e4m3 has, half to even; Triton's interpreter converts others wrongly.

    (It loses the carry of 124.3, which is to become 128, and makes 64 of it.) Below 2^-6 numbers lie 2^-9 apart.
    """
    bits = x.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
    small = (x + 24576.0) - 24576.0  # 1.5 * 2^14, where fp32 numbers lie 2^-9 apart
    return tl.where(tl.abs(x) < 0.015625, small, normal)


@triton.jit
def quantize_rows(x_ptr, out_ptr, scale_ptr, width, BLOCK: tl.constexpr):
    """out [R, K] and scales [R] of x [R, K]; a program a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    out, scale = row_in_8_bits(x, out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * width + column, out, mask=inside)
    tl.store(scale_ptr + row, scale)


@triton.jit
def quantized_linear(
    x_ptr,
    x_scale_ptr,
    w_ptr,
    w_scale_ptr,
    bias_ptr,
    residual_ptr,
    gate_ptr,
    out_ptr,
    rows,
    n_out,
    n_in,
    tokens,
    gate_batch,
    gate_token,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """out [R, N] = residual + gate * gelu(x w^T * scales + bias), x [R, K] and w [N, K]; what is not asked for is left.

    Programs go through GROUP rows of blocks together, so that a block of weights is still in the cache when read again.
    """
    blocks_m, blocks_n = tl.cdiv(rows, BLOCK_M), tl.cdiv(n_out, BLOCK_N)
    at = tl.program_id(0)
    group = at // (GROUP * blocks_n)
    tall = tl.minimum(blocks_m - group * GROUP, GROUP)
    inside_group = at % (GROUP * blocks_n)
    m = (group * GROUP + inside_group % tall) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = inside_group // tall * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    integers: tl.constexpr = w_ptr.dtype.element_ty == tl.int8
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.int32 if integers else tl.float32)
    x_at = x_ptr + m.to(tl.int64)[:, None] * n_in + k[None]
    w_at = w_ptr + n.to(tl.int64)[None] * n_in + k[:, None]
    for start in range(0, n_in, BLOCK_K):
        real = k + start < n_in
        x = tl.load(x_at, mask=(m[:, None] < rows) & real[None], other=0.0)
        w = tl.load(w_at, mask=(n[None] < n_out) & real[:, None], other=0.0)
        if integers:
            total = tl.dot(x, w, acc=total, out_dtype=tl.int32)
        else:
            # Hopper's units keep 14 bits of a sum of fp8: it is added to one in fp32 after each block.
            total = tl.dot(x, w, acc=total, max_num_imprecise_acc=BLOCK_K, out_dtype=tl.float32)
        x_at += BLOCK_K
        w_at += BLOCK_K
    y = total.to(tl.float32) * tl.load(x_scale_ptr + m, mask=m < rows, other=0.0)[:, None]
    y = y * tl.load(w_scale_ptr + n, mask=n < n_out, other=0.0)[None]
    if BIAS:
        y = y + tl.load(bias_ptr + n, mask=n < n_out, other=0.0).to(tl.float32)[None]
    if GELU:
        # A constant to the left of a block is no block to the interpreter; beyond e^80 the quotient is 0 in any dtype.
        falling = tl.exp(tl.minimum((y + 0.044715 * y * y * y) * -_GELU, 80.0))
        y = y / (1.0 + falling)
    inside = (m[:, None] < rows) & (n[None] < n_out)
    place = m.to(tl.int64)[:, None] * n_out + n[None]
    if GATE:
        of_row = (m // tokens).to(tl.int64) * gate_batch + (m % tokens).to(tl.int64) * gate_token
        y = y * tl.load(gate_ptr + of_row[:, None] + n[None], mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        y = y + tl.load(residual_ptr + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)
