"""The gated residual add where no norm follows that it could be fused with: at the end of a block."""

# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gated_residual(
    x_ptr, branch_ptr, gate_ptr, out_ptr, tokens, width, gate_batch, gate_token, GATE: tl.constexpr, BLOCK: tl.constexpr
):
    """out = x + gate * branch, a row a program; a gate's stride over tokens is 0 where a batch shares one."""
    token, batch = tl.program_id(0), tl.program_id(1)
    row = (batch.to(tl.int64) * tokens + token) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    branch = tl.load(branch_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
    if GATE:
        at = batch.to(tl.int64) * gate_batch + token * gate_token
        branch = branch * tl.load(gate_ptr + at + column, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row + column, (x + branch).to(out_ptr.dtype.element_ty), mask=inside)
