"""Every operator really executed on a GPU, in bf16 as well: run by `make gpu-check`."""

from __future__ import annotations

import pytest
import torch

from kernels.accuracy import EIGHT_BITS, TOLERANCES, Case, error_of
from kernels.accuracy_cases import cases
from kernels.attention import attention, int8_attention
from kernels.configurations import NO_FP8, target_of
from kernels.dispatch import Implementation, installed, using
from kernels.masks import BlockCausal, Mask, SlidingTile
from kernels.modulated_norm import gated_norm
from kernels.quantized import quantize_rows, quantized_linear

pytestmark = pytest.mark.gpu

# bf16 keeps eight bits, fp16 eleven.
_TOLERANCES = {**TOLERANCES, torch.bfloat16: 8 * TOLERANCES[torch.float16]}
_LIBRARIES = (Implementation.FLASH_ATTN, Implementation.XFORMERS, Implementation.SAGE)
_HEADS = (1, 2 * 1560, 4, 128)  # two latent frames of Wan at 480 x 832
_MASKS: tuple[Mask | None, ...] = (
    None,
    BlockCausal(chunk=1560, window=2, sink=1),
    SlidingTile(grid=(2, 30, 52), tile=(1, 6, 4), window=(1, 3, 3)),
)


def _skip_without_fp8(told: str) -> None:
    if "float8" in told and target_of(torch.device("cuda", 0)) in NO_FP8:
        pytest.skip("this GPU multiplies no fp8")


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda", dtype=torch.bfloat16)


def _apart(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


@pytest.mark.parametrize("dtype", _TOLERANCES, ids=str)
@pytest.mark.parametrize("case", list(cases()), ids=lambda c: f"{c.operator} {c.shape}")
def test_the_twin_is_the_reference_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    """Outputs and gradients of the compiled kernels agree with the reference in fp64.

    Of what is rounded to 8 bits, as far as the reference in that dtype does: a value half way may go either way.
    """
    _skip_without_fp8(case.shape)
    bound = _TOLERANCES[dtype]
    if case.operator in EIGHT_BITS:
        own = error_of(case, dtype, implementation=Implementation.REFERENCE, device="cuda")
        bound = max(bound, 1 / 127, 1.5 * own)
    assert error_of(case, dtype, implementation=Implementation.TRITON, device="cuda") <= bound


@pytest.mark.parametrize("mask", _MASKS, ids=str)
def test_attention_at_the_size_of_wan(mask: Mask | None) -> None:
    """The twin in bf16 beside torch's in fp32, exact and with scores of int8; heads of 256 values too."""
    for width in (128, 256):
        q, k, v = (_draw(*_HEADS[:3], width, seed=seed) for seed in range(3))
        with using(Implementation.SDPA):
            want = attention(q.float(), k.float(), v.float(), mask=mask)
        with using(Implementation.TRITON):
            assert _apart(attention(q, k, v, mask=mask), want) <= 1e-2
            assert _apart(int8_attention(q, k, v, mask=mask), want) <= 3e-2


@pytest.mark.parametrize("library", _LIBRARIES, ids=str)
def test_a_library_attends_as_torch_does(library: Implementation) -> None:
    """Those that are installed, in bf16; SageAttention rounds to int8."""
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    q, k, v = (_draw(*_HEADS, seed=seed) for seed in range(3))
    want = attention(q.float(), k.float(), v.float())
    with using(library):
        assert _apart(attention(q, k, v), want) <= (5e-2 if library is Implementation.SAGE else 1e-2)


@pytest.mark.parametrize("form", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_long_sums_in_eight_bits_are_whole(form: torch.dtype) -> None:
    """Over the 13,824 values of the 14B's feed-forward: a sum that keeps 14 bits of fp8 would be off by a percent.

    int8 is exact. Hopper's units keep 14 bits within a block of values, which an H100 was seen to make 1.6e-4 of.
    """
    _skip_without_fp8(str(form))
    x, weight = quantize_rows(_draw(1, 512, 13_824).abs(), form), quantize_rows(_draw(512, 13_824, seed=1).abs(), form)
    with using(Implementation.REFERENCE):
        want = quantized_linear(x, weight, dtype=torch.float32)
    with using(Implementation.TRITON):
        assert _apart(quantized_linear(x, weight, dtype=torch.float32), want) <= (1e-6 if form is torch.int8 else 5e-4)


def test_a_backward_on_a_gpu_is_computed_as_was_asked() -> None:
    """autograd computes it in a thread of its own, which takes over what the forward was told."""
    x = _draw(1, 64, 128).requires_grad_()
    gradients = []
    for way in (Implementation.TRITON, Implementation.REFERENCE):
        with using(way):
            residual, y = gated_norm(x, x, None)
            gradients.append(torch.autograd.grad((residual + y).float().square().sum(), x)[0])
    assert _apart(gradients[0], gradients[1]) <= 1e-2
