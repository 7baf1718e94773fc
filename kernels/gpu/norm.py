"""Norm and modulation of rows, with the gated residual before it; forward and backward.

One program holds a whole row of D values in registers, so that x and the branch are read once and nothing is read again
to normalise. Rows go by (token, batch) in the grid; a modulation's stride over tokens is 0 where a batch shares one.
"""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quantized import row_in_8_bits


@triton.jit
def norm_forward(
    x_ptr,
    branch_ptr,
    gate_ptr,
    scale_ptr,
    shift_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    out_scale_ptr,
    tokens,
    width,
    gate_batch,
    gate_token,
    scale_batch,
    scale_token,
    eps,
    BRANCH: tl.constexpr,
    GATE: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    RMS: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = modulated norm of the residual; the residual x + gate * branch is stored where there is a branch.

    With QUANTIZE out is int8 or fp8, and each row's scale is stored beside it.
    """
    token, batch = tl.program_id(0), tl.program_id(1)
    row = (batch.to(tl.int64) * tokens + token) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
    if BRANCH:
        branch = tl.load(branch_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            at = batch.to(tl.int64) * gate_batch + token * gate_token
            branch = branch * tl.load(gate_ptr + at + column, mask=inside, other=0.0).to(tl.float32)
        # Rounded as it is stored, so that the norm is of what the next reader of the residual sees.
        stored = (x + branch).to(residual_ptr.dtype.element_ty)
        tl.store(residual_ptr + row + column, stored, mask=inside)
        x = stored.to(tl.float32)
    if not RMS:
        x = tl.where(inside, x - tl.sum(x, 0) / width, 0.0)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    if WEIGHT:
        y = y * tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        y = y + tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    at = batch.to(tl.int64) * scale_batch + token * scale_token
    if SCALE:
        y = y * (1.0 + tl.load(scale_ptr + at + column, mask=inside, other=0.0).to(tl.float32))
    if SHIFT:
        y = y + tl.load(shift_ptr + at + column, mask=inside, other=0.0).to(tl.float32)
    if QUANTIZE:
        y, row_scale = row_in_8_bits(y, out_ptr.dtype.element_ty)
        tl.store(out_scale_ptr + batch * tokens + token, row_scale)
    tl.store(out_ptr + row + column, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def norm_backward(  # noqa: C901, PLR0912, PLR0915  branches are compiled away, and a kernel is one function
    gradient_ptr,
    residual_gradient_ptr,
    x_ptr,
    branch_ptr,
    gate_ptr,
    scale_ptr,
    weight_ptr,
    bias_ptr,
    dx_ptr,
    dbranch_ptr,
    dgate_ptr,
    dscale_ptr,
    dshift_ptr,
    dweight_ptr,
    dbias_ptr,
    tokens,
    width,
    gate_batch,
    gate_token,
    scale_batch,
    scale_token,
    eps,
    BRANCH: tl.constexpr,
    GATE: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    RMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `norm_forward`, x_ptr being the stored residual.

    A program goes through ROWS tokens of a batch and sums the gradients of gate, scale, shift, weight and bias over
    them: partial sums [B, programs, D], added up outside. With ROWS = 1 they are the gradients of every token's own.
    """
    part, batch = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, BLOCK)
    inside = column < width
    dgate = tl.zeros([BLOCK], tl.float32)
    dscale = tl.zeros([BLOCK], tl.float32)
    dshift = tl.zeros([BLOCK], tl.float32)
    dweight = tl.zeros([BLOCK], tl.float32)
    dbias = tl.zeros([BLOCK], tl.float32)
    for i in range(ROWS):
        token = part * ROWS + i
        here = column < tl.where(token < tokens, width, 0)
        row = (batch.to(tl.int64) * tokens + token) * width
        g = tl.load(gradient_ptr + row + column, mask=here, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + row + column, mask=here, other=0.0).to(tl.float32)
        if not RMS:
            x = tl.where(here, x - tl.sum(x, 0) / width, 0.0)
        r = tl.rsqrt(tl.sum(x * x, 0) / width + eps)
        n = x * r
        gm = g
        if SHIFT:
            dshift += g
        if SCALE:
            at = batch.to(tl.int64) * scale_batch + token * scale_token
            gm = g * (1.0 + tl.load(scale_ptr + at + column, mask=here, other=0.0).to(tl.float32))
            inner = n
            if WEIGHT:
                inner = inner * tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
            if BIAS:
                inner = inner + tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
            dscale += g * inner
        if BIAS:
            dbias += gm
        if WEIGHT:
            dweight += gm * n
            gm = gm * tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
        dx = gm - n * (tl.sum(gm * n, 0) / width)
        if not RMS:
            dx = dx - tl.sum(gm, 0) / width
        dx = dx * r
        if BRANCH:
            dx += tl.load(residual_gradient_ptr + row + column, mask=here, other=0.0).to(tl.float32)
        tl.store(dx_ptr + row + column, dx.to(dx_ptr.dtype.element_ty), mask=here)
        if BRANCH:
            if GATE:
                at = batch.to(tl.int64) * gate_batch + token * gate_token
                dgate += dx * tl.load(branch_ptr + row + column, mask=here, other=0.0).to(tl.float32)
                dx = dx * tl.load(gate_ptr + at + column, mask=here, other=0.0).to(tl.float32)
            tl.store(dbranch_ptr + row + column, dx.to(dbranch_ptr.dtype.element_ty), mask=here)
    at = (batch.to(tl.int64) * tl.num_programs(0) + part) * width + column
    if SHIFT:
        tl.store(dshift_ptr + at, dshift, mask=inside)
    if GATE:
        tl.store(dgate_ptr + at, dgate, mask=inside)
    if SCALE:
        tl.store(dscale_ptr + at, dscale, mask=inside)
    if WEIGHT:
        tl.store(dweight_ptr + at, dweight, mask=inside)
    if BIAS:
        tl.store(dbias_ptr + at, dbias, mask=inside)
