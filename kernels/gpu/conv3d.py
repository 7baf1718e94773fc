"""Causal convolution over time, rows and columns as a matrix product whose left side is read where it lies.

Pixels are channels-last, so that a tap's channels lie together. A program makes BLOCK_M pixels of BLOCK_N channels, and
goes through the taps of the filter; a frame before the first comes from the cache, and before that there are zeros.
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def causal_conv3d(
    x_ptr,
    cache_ptr,
    w_ptr,
    bias_ptr,
    out_ptr,
    pixels,
    frames,
    cached,
    rows,
    columns,
    n_in,
    n_out,
    row_padding,
    column_padding,
    out_rows,
    out_columns,
    TAPS_T: tl.constexpr,
    TAPS_H: tl.constexpr,
    TAPS_W: tl.constexpr,
    CACHE: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out [B, T, H', W', O] of x [B, T, H, W, C], cache [B, P, H, W, C] and w [O, taps, C]; M counts pixels of out."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    column = m % out_columns - column_padding
    row = m // out_columns % out_rows - row_padding
    frame = m // (out_columns * out_rows) % frames - (TAPS_T - 1)
    batch = m // (out_columns * out_rows * frames)
    of_channels = tl.cdiv(n_in, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for i in range(TAPS_T * TAPS_H * TAPS_W * of_channels):
        tap, channel = i // of_channels, i % of_channels * BLOCK_K + k
        t = frame + tap // (TAPS_H * TAPS_W)
        h = row + tap // TAPS_W % TAPS_H
        w = column + tap % TAPS_W
        inside = (m < pixels) & (h >= 0) & (h < rows) & (w >= 0) & (w < columns)
        real = (channel < n_in)[None]
        place = (h * columns + w) * n_in
        at = (batch * frames + t) * (rows * columns * n_in) + place
        x = tl.load(x_ptr + at[:, None] + channel[None], mask=(inside & (t >= 0))[:, None] & real, other=0.0)
        if CACHE:
            # A second load and not another address: addresses that differ by pixel cannot be copied ahead.
            at = (batch * cached + t + cached) * (rows * columns * n_in) + place
            held = (inside & (t < 0) & (t + cached >= 0))[:, None] & real
            x += tl.load(cache_ptr + at[:, None] + channel[None], mask=held, other=0.0)
        of_w = n[None].to(tl.int64) * (TAPS_T * TAPS_H * TAPS_W * n_in) + tap * n_in + channel[:, None]
        weight = tl.load(w_ptr + of_w, mask=(n[None] < n_out) & (channel < n_in)[:, None], other=0.0)
        total = tl.dot(x, weight, acc=total, input_precision="ieee")
    if BIAS:
        total = total + tl.load(bias_ptr + n, mask=n < n_out, other=0.0).to(tl.float32)[None]
    stored = (m < pixels)[:, None] & (n < n_out)[None]
    tl.store(out_ptr + m[:, None] * n_out + n[None], total.to(out_ptr.dtype.element_ty), mask=stored)
