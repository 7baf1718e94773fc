"""A stochastic sampler's step with its log-probability, and the score of a step that was taken with its gradients.

Latents are rows of N values, a film a row; programs go by (block, row).
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.flow_step import guided_velocity


@triton.jit
def stochastic_kernel(
    x_ptr,
    conditional_ptr,
    unconditional_ptr,
    guidance_ptr,
    noise_ptr,
    out_ptr,
    squares_ptr,
    count,
    keep,
    pull,
    deviation,
    GUIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = keep x + pull v + deviation noise, and each block's sum of squared noise."""
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    at = row.to(tl.int64) * count + at
    v = guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    noise = tl.load(noise_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, keep * x + pull * v + deviation * noise, mask=inside)
    # Added up outside in a fixed order: atomics would give another log-probability each time.
    tl.store(squares_ptr + row * tl.num_programs(0) + tl.program_id(0), tl.sum(noise * noise, 0))


@triton.jit
def score_kernel(
    x_ptr,
    conditional_ptr,
    unconditional_ptr,
    guidance_ptr,
    taken_ptr,
    squares_ptr,
    count,
    keep,
    pull,
    deviation,
    GUIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each block's sum of ((taken - keep x - pull v) / deviation)^2."""
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    at = row.to(tl.int64) * count + at
    v = guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    taken = tl.load(taken_ptr + at, mask=inside, other=0.0).to(tl.float32)
    residual = (taken - keep * x - pull * v) / deviation
    tl.store(squares_ptr + row * tl.num_programs(0) + tl.program_id(0), tl.sum(residual * residual, 0))


@triton.jit
def score_backward_kernel(
    gradient_ptr,
    x_ptr,
    conditional_ptr,
    unconditional_ptr,
    guidance_ptr,
    taken_ptr,
    ours_ptr,
    theirs_ptr,
    count,
    keep,
    pull,
    deviation,
    GUIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of v it is gradient * pull * residual / deviation; the conditional velocity has w of it, the other 1 - w."""
    row = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    at = row.to(tl.int64) * count + at
    v = guided_velocity(at, inside, row, conditional_ptr, unconditional_ptr, guidance_ptr, GUIDED)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    taken = tl.load(taken_ptr + at, mask=inside, other=0.0).to(tl.float32)
    residual = (taken - keep * x - pull * v) / deviation
    of_v = tl.load(gradient_ptr + row).to(tl.float32) * pull * residual / deviation
    if GUIDED:
        w = tl.load(guidance_ptr + row).to(tl.float32)
        tl.store(theirs_ptr + at, ((1.0 - w) * of_v).to(theirs_ptr.dtype.element_ty), mask=inside)
        of_v = w * of_v
    tl.store(ours_ptr + at, of_v.to(ours_ptr.dtype.element_ty), mask=inside)
