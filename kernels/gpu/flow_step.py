"""Guidance and a sampler's step in one pass over the latents: each tensor is read once and each result written once.

Latents are rows of N values, a film a row; programs go by (block, row).
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED: tl.constexpr):
    """The velocity of film `row` at the places `at`, in fp32; unguided it is the conditional one."""
    v = tl.load(conditional_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if GUIDED:
        u = tl.load(unconditional_ptr + at, mask=inside, other=0.0).to(tl.float32)
        v = u + tl.load(guidance_ptr + row) * (v - u)
    return v


@triton.jit
def euler_kernel(
    x_ptr,
    conditional_ptr,
    unconditional_ptr,
    guidance_ptr,
    out_ptr,
    count,
    change,
    GUIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = x + change * v."""
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    at = row.to(tl.int64) * count + at
    v = guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, x + change * v, mask=inside)


@triton.jit
def unipc_kernel(
    x_ptr,
    conditional_ptr,
    unconditional_ptr,
    guidance_ptr,
    before_ptr,
    newest_ptr,
    older_ptr,
    clean_ptr,
    here_ptr,
    next_ptr,
    count,
    s,
    c0,
    c1,
    c2,
    c3,
    p0,
    p1,
    p2,
    GUIDED: tl.constexpr,
    CORRECTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """clean, here and next of `reference.unipc_step`."""
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    at = row.to(tl.int64) * count + at
    v = guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    newest = tl.load(newest_ptr + at, mask=inside, other=0.0).to(tl.float32)
    clean = x - s * v
    here = x
    if CORRECTS:
        before = tl.load(before_ptr + at, mask=inside, other=0.0).to(tl.float32)
        older = tl.load(older_ptr + at, mask=inside, other=0.0).to(tl.float32)
        here = c0 * before + c1 * newest + c2 * older + c3 * clean
    tl.store(clean_ptr + at, clean, mask=inside)
    tl.store(here_ptr + at, here, mask=inside)
    tl.store(next_ptr + at, p0 * here + p1 * clean + p2 * newest, mask=inside)
