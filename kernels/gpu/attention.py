"""Attention with an online softmax over the keys that a mask shows, in the dtype of its inputs or with int8 scores.

A program holds BLOCK_Q queries of a head and goes through the blocks of keys that any of them sees; what none sees is
neither read nor computed. Sums are kept as in FlashAttention-2 (Dao, arXiv 2307.08691).
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

ALL, BLOCK_CAUSAL, SLIDING_TILE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def window_start(own, count, window):
    """The first of the `window` tiles, of `count`, that tile `own` sees."""
    return tl.minimum(tl.maximum(own - window // 2, 0), count - window)


@triton.jit
def blocks_of_chunks(first, queries, keys, chunk, window, sink, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """Of the queries from `first`: the block of keys that their window begins with, blocks of the sink before it, and
    how many there are in all.
    """
    last = tl.minimum(first + BLOCK_Q, queries) - 1 + keys - queries
    count = tl.cdiv(tl.minimum((last // chunk + 1) * chunk, keys), BLOCK_K)
    begin, sinks = 0, 0
    if window > 0:
        begin = tl.maximum((first + keys - queries) // chunk - window + 1, 0) * chunk // BLOCK_K
        sinks = tl.minimum(tl.cdiv(sink * chunk, BLOCK_K), begin)
        count = count - begin + sinks
    return begin, sinks, count


@triton.jit
def chunks_shown(place, key, keys, chunk, window, sink):
    """Which keys the queries at `place` see, by chunks, and within the film."""
    own = place // chunk
    oldest = tl.where(window == 0, -1, own - window)
    # Rules on keys alone go into a key's chunk, which leaves two comparisons for each score.
    other = tl.where(key < keys, key // chunk, keys)
    near = tl.where(other < sink, keys, other)
    return (other[None] <= own[:, None]) & (near[None] > oldest[:, None])


@triton.jit
def attention_forward(  # noqa: PLR0915  a kernel is one function
    q_ptr,
    k_ptr,
    v_ptr,
    q_scale_ptr,
    k_scale_ptr,
    out_ptr,
    queries,
    keys,
    heads,
    width,
    scale,
    # Of BLOCK_CAUSAL its chunk, window and sink; of SLIDING_TILE a tile's tokens, and tiles and windows each way.
    a,
    b,
    c,
    tiles_t,
    tiles_h,
    tiles_w,
    window_t,
    window_h,
    window_w,
    MASK: tl.constexpr,
    INT8: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out [B, L, H, E] of q [B, L, H, E], k and v [B, M, H, E]; `scale` holds log2(e), scales are [B, H, blocks]."""
    block, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    of_tile = tl.cdiv(a, BLOCK_Q)
    tile = block // of_tile
    first = block * BLOCK_Q
    last = queries
    if MASK == SLIDING_TILE:
        first = tile * a + block % of_tile * BLOCK_Q
        last = tile * a + a
    row = first + tl.arange(0, BLOCK_Q)
    column, lane = tl.arange(0, WIDTH), tl.arange(0, BLOCK_K)
    step = heads * width
    q_at = (batch.to(tl.int64) * queries + row[:, None]) * step + head * width + column[None]
    real = (row[:, None] < last) & (column[None] < width)
    q = tl.load(q_ptr + q_at, mask=real, other=0.0)
    of_k = tl.cdiv(keys, BLOCK_K)
    if INT8:
        q_scale = tl.load(q_scale_ptr + (batch * heads + head) * tl.num_programs(0) + block) * scale
        if MASK == SLIDING_TILE:
            of_k = tiles_t * tiles_h * tiles_w * tl.cdiv(a, BLOCK_K)

    # How many blocks of keys are gone through, and what their numbers mean.
    begin, sinks, count = 0, 0, tl.cdiv(keys, BLOCK_K)
    if MASK == BLOCK_CAUSAL:
        begin, sinks, count = blocks_of_chunks(first, queries, keys, a, b, c, BLOCK_Q, BLOCK_K)
    parts = tl.cdiv(a, BLOCK_K)
    from_t = window_start(tile // (tiles_h * tiles_w), tiles_t, window_t)
    from_h = window_start(tile // tiles_w % tiles_h, tiles_h, window_h)
    from_w = window_start(tile % tiles_w, tiles_w, window_w)
    if MASK == SLIDING_TILE:
        count = window_t * window_h * window_w * parts

    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    out = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    for i in range(count):
        number = tl.where(i < sinks, i, i - sinks + begin)
        start, end = number * BLOCK_K, keys
        if MASK == SLIDING_TILE:
            seen = i // parts
            other = (from_t + seen // (window_h * window_w)) * tiles_h + from_h + seen // window_w % window_h
            other = other * tiles_w + from_w + seen % window_w
            start, end = other * a + i % parts * BLOCK_K, other * a + a
            number = other * parts + i % parts
        key = start + lane
        at = (batch.to(tl.int64) * keys + start) * step + head * width
        k_at = k_ptr + at + (lane[None] * step + column[:, None])
        k = tl.load(k_at, mask=(key[None] < end) & (column[:, None] < width), other=0.0)
        if INT8:
            k_scale = tl.load(k_scale_ptr + (batch * heads + head) * of_k + number)
            scores = tl.dot(q, k, out_dtype=tl.int32).to(tl.float32) * (q_scale * k_scale)
        else:
            scores = tl.dot(q, k, input_precision="ieee") * scale
        shown = key[None] < end
        if MASK == BLOCK_CAUSAL:
            shown = chunks_shown(row + keys - queries, key, keys, a, b, c)
        scores = tl.where(shown, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        # A row that has seen no key yet has no peak, and -inf less -inf is no number.
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        p = tl.exp2(scores - base[:, None])
        fade = tl.exp2(peak - base)
        v_at = v_ptr + at + (lane[:, None] * step + column[None])
        v = tl.load(v_at, mask=(key[:, None] < end) & (column[None] < width), other=0.0)
        out = tl.dot(p.to(v.dtype), v, acc=out * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(p, 1)
        peak = new_peak
    # Rows beyond the last query may have seen nothing; they are not stored.
    out = out / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out_ptr + q_at, out.to(out_ptr.dtype.element_ty), mask=real)


@triton.jit
def quantize_blocks(
    x_ptr,
    mean_ptr,
    out_ptr,
    scale_ptr,
    tokens,
    heads,
    width,
    segment,
    MEAN: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """int8 of x [B, L, H, E] less its mean [B, H, E], and a scale for each block of tokens of a head."""
    block, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts = tl.cdiv(segment, BLOCK)
    first = block // parts * segment
    row = first + block % parts * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    at = (batch.to(tl.int64) * tokens + row[:, None]) * heads * width + head * width + column[None]
    real = (row[:, None] < tl.minimum(first + segment, tokens)) & (column[None] < width)
    x = tl.load(x_ptr + at, mask=real, other=0.0).to(tl.float32)
    if MEAN:
        mean = tl.load(mean_ptr + (batch * heads + head) * width + column, mask=column < width, other=0.0)
        x = tl.where(real, x - mean[None], 0.0)
    scale = tl.div_rn(tl.max(tl.max(tl.abs(x), 1), 0), 127.0)
    ratio = tl.div_rn(x, tl.maximum(scale, 1e-30))  # as IEEE 754 has it, or halves are missed
    # Half away from zero: conversion to an integer cuts off.
    whole = ratio + 0.5 * tl.where(ratio < 0, -1.0, tl.where(ratio > 0, 1.0, 0.0))
    tl.store(out_ptr + at, whole.to(tl.int8), mask=real)
    tl.store(scale_ptr + (batch * heads + head) * tl.num_programs(0) + block, scale)
