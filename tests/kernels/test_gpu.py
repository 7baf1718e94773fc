"""Every operator really executed on a GPU, in bf16 as well: run by `make gpu-check`."""

from __future__ import annotations

import pytest
import torch

from kernels.accuracy import EIGHT_BITS, TOLERANCES, Case, error_of
from kernels.accuracy_cases import cases
from kernels.dispatch import Implementation

# bf16 keeps eight bits, fp16 eleven.
_TOLERANCES = {**TOLERANCES, torch.bfloat16: 8 * TOLERANCES[torch.float16]}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("case", list(cases()), ids=lambda c: f"{c.operator} {c.shape}")
def test_the_twin_is_the_reference_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    """Outputs and gradients of the compiled kernels agree with the reference in fp64."""
    bound = max(_TOLERANCES[dtype], 1 / 127 if case.operator in EIGHT_BITS else 0)
    assert error_of(case, dtype, implementation=Implementation.TRITON, device="cuda") <= bound
