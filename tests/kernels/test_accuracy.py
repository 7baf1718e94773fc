"""Every operator: its twin by the interpreter against fp64, and its gradients."""

from __future__ import annotations

import pytest
import torch

from kernels.accuracy import Case, error_of, poisoned_buffers, tolerance
from kernels.accuracy_cases import cases
from kernels.attention import attention
from kernels.conv3d import causal_conv3d
from kernels.dispatch import Implementation, OperatorUnavailableError, recorded, using
from kernels.flow_step import euler_step, unipc_step
from kernels.modulated_norm import gated_norm, modulated_norm
from kernels.quantized import Quantized, quantize_rows, quantized_linear
from kernels.residual import gated_residual
from kernels.rope3d import qk_norm_rope
from kernels.stochastic import stochastic_score, stochastic_step

_CASES = list(cases())


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize("case", _CASES, ids=lambda c: f"{c.operator} {c.shape}")
def test_the_twin_is_the_reference(case: Case, dtype: torch.dtype) -> None:
    """Outputs and gradients agree with the reference in fp64 within the table, buffers being poisoned."""
    assert error_of(case, dtype) <= tolerance(case.operator, dtype)


def test_norms_have_the_gradients_of_their_formula() -> None:
    """Of everything that goes into a gated norm, a modulation for all tokens or for each, by finite differences."""
    for tokens, rms in ((1, False), (5, False), (1, True)):
        x, branch = (torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
        gate, scale, shift = (torch.randn(2, tokens, 6, dtype=torch.float64, requires_grad=True) for _ in range(3))
        weight, bias = (torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(
            lambda x, b, g, s, t, w, c, rms=rms: gated_norm(x, b, g, scale=s, shift=t, weight=w, bias=c, rms=rms),
            (x, branch, gate, scale, shift, weight, bias),
            fast_mode=True,
        )


def test_a_residual_has_the_gradients_of_its_formula() -> None:
    """With a gate for all tokens, for each, and without."""
    for tokens in (1, 5, 0):
        x, branch = (torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
        gate = torch.randn(2, tokens, 6, dtype=torch.float64, requires_grad=True) if tokens else None
        assert torch.autograd.gradcheck(gated_residual, (x, branch, gate), fast_mode=True)


def test_rotation_has_the_gradients_of_its_formula() -> None:
    """Queries and keys that are turned, against finite differences."""
    q, k = (torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = [torch.randn(12, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    angles = torch.randn(6, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *v: qk_norm_rope(*v, heads=2, cos=angles.cos(), sin=angles.sin()), (q, k, *weights), fast_mode=True
    )


def test_a_buffer_that_is_not_written_is_seen() -> None:
    """The poison is NaN, in fp16 too, or a kernel that forgets half of its output would pass."""
    with poisoned_buffers():
        assert bool(torch.isnan(torch.empty(9, dtype=torch.float16)).all())
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operator_says_what_ran() -> None:
    """The reference by default on a CPU, the interpreter when it is asked for, by name of the operator."""
    x, shift = torch.randn(1, 3, 8), torch.randn(1, 1, 8)
    with recorded() as ran:
        plain = modulated_norm(x, scale=shift, shift=shift)
        with using(Implementation.INTERPRETER):
            twin = modulated_norm(x, scale=shift, shift=shift)
    assert ran == [("modulated_norm", Implementation.REFERENCE), ("modulated_norm", Implementation.INTERPRETER)]
    assert torch.allclose(plain, twin, atol=1e-6)


def test_a_kernel_cannot_be_compiled_where_it_is_interpreted() -> None:
    """Asked for a GPU in a process that interprets, the dispatcher says which variable to unset."""
    with pytest.raises(OperatorUnavailableError, match="unset TRITON_INTERPRET"), using(Implementation.TRITON):
        pass


def test_a_weight_in_another_layout_is_the_same_weight() -> None:
    """The twin reads rows as they lie, so an operator makes them lie so."""
    generator = torch.Generator().manual_seed(3)
    x, w = torch.randn(1, 4, 32, generator=generator), torch.randn(16, 32, generator=generator)
    rows, weight = quantize_rows(x), quantize_rows(w)
    turned = Quantized(weight.values.t().contiguous().t(), weight.scales)
    with using(Implementation.INTERPRETER):
        want, got = (quantized_linear(rows, side, dtype=torch.float32) for side in (weight, turned))
    assert torch.equal(want, got)


_X, _FILM, _TAPS = torch.ones(2, 5, 8), torch.ones(1, 2, 1, 3, 3), torch.ones(2, 2, 3, 3, 3)
_ROWS, _WEIGHT = quantize_rows(_X), quantize_rows(torch.ones(8, 8))
_FP32 = torch.float32


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: quantize_rows(_X, torch.int16), "torch.int16 is no 8-bit format; use torch.int8 or torch.float8"),
        (lambda: quantize_rows(_X[..., :0]), "must have 1 to 32768 values"),
        (lambda: quantized_linear(_ROWS, quantize_rows(_X[0, :, :3]), dtype=_FP32), r"\[out, in\] of one format"),
        (lambda: quantized_linear(_ROWS, quantize_rows(_X[0], torch.float8_e4m3fn), dtype=_FP32), "of one format"),
        (lambda: quantized_linear(_ROWS, _WEIGHT, _X[0, 0, :3], dtype=_FP32), "the bias is"),
        (lambda: quantized_linear(_ROWS, _WEIGHT, dtype=_FP32, residual=_X[..., :3]), "the residual is"),
        (lambda: quantized_linear(_ROWS, _WEIGHT, dtype=_FP32, gate=_X[:, :3]), "the gate is"),
        (
            lambda: quantized_linear(Quantized(_ROWS.values, _ROWS.scales[:, :1]), _WEIGHT, dtype=_FP32),
            r"the scales of x are \[2, 1\] of torch.float32; values of \[2, 5, 8\] need \[2, 5\] of floats",
        ),
        (
            lambda: quantized_linear(_ROWS, Quantized(_WEIGHT.values, _WEIGHT.scales.int()), dtype=_FP32),
            "the scales of weight are",
        ),
        (lambda: causal_conv3d(_X, _TAPS), "x is"),
        (lambda: causal_conv3d(_FILM[..., :2], _TAPS), "are smaller than"),
        (lambda: causal_conv3d(_FILM, _TAPS, cache=torch.ones(1, 2, 3, 3, 3)), "looks back at 2"),
        (lambda: causal_conv3d(_FILM, _TAPS, torch.ones(3)), "the bias is"),
    ],
)
def test_products_that_do_not_fit_are_refused(call: object, sentence: str) -> None:
    """One sentence with the shapes or formats seen."""
    assert callable(call)
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x, m: modulated_norm(x, scale=m), "scale and shift come together"),
        (lambda x, m: modulated_norm(x[0], scale=m, shift=m), r"must be \[batch, tokens, width\]"),
        (lambda x, m: modulated_norm(x, scale=m[..., :3], shift=m[..., :3]), r"needs \[2, 1 or 5, 8\]"),
        (lambda x, m: modulated_norm(x, weight=m[0, 0, :3]), r"the weight is \[3\]"),
        (lambda x, m: gated_norm(x, x[:, :2], m), "they are added"),
        (lambda x, m: gated_norm(x, x, m[..., :3]), "the gate is"),
        (lambda x, m: gated_residual(x, x[:, :2], m), "the branch is"),
        (lambda x, m: gated_residual(x, x, m[..., :3]), "the gate is"),
        (lambda x, m: qk_norm_rope(x, x, m[0, 0], m[0, 0], heads=3), "of 3 even heads"),
        (lambda x, m: qk_norm_rope(x, x, m[0, 0], m[0, 0], heads=2, cos=x), "cos and sin come together"),
        (lambda x, m: qk_norm_rope(x, x, m[0, 0], m[0, 0], heads=2, cos=x, sin=x), "do not turn"),
        (lambda x, m: qk_norm_rope(x, x, m[0, 0, :2], m[0, 0], heads=2), "the weights are"),
        (lambda x, m: qk_norm_rope(x, x, m[0, 0], m[0, 0], heads=0), "of 0 even heads"),
        (lambda x, m: qk_norm_rope(x, x.half(), m[0, 0], m[0, 0], heads=2), "of one dtype"),
        (lambda x, _: attention(x[:, :, None], x[:, :, None].half(), x[:, :, None]), "needs one dtype and one device"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: object, sentence: str) -> None:
    """One sentence with the shapes seen, before any kernel could read beyond a buffer."""
    assert callable(call)
    with pytest.raises(ValueError, match=sentence):
        call(torch.randn(2, 5, 8), torch.randn(2, 1, 8))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: euler_step(x, x, x, change=0.1), "needs both"),
        (lambda x: euler_step(x, x, x, torch.ones(3), change=0.1), r"guidance is \[3\]; 2 films need \[2\]"),
        (lambda x: euler_step(x, x[:, :4], change=0.1), "the conditional velocity is"),
        (lambda x: unipc_step(x, x, before=x, newest=x, older=x, coefficients=[1.0]), "has eight"),
        (lambda x: unipc_step(x, x, before=x[:1], newest=x, older=x, coefficients=[1.0] * 8), "the history is"),
        (lambda x: stochastic_step(x, x, noise=x, keep=1, pull=1, deviation=0), "needs one above zero"),
        (lambda x: stochastic_score(x, x, taken=x, keep=1, pull=1, deviation=float("nan")), "needs one above zero"),
        (lambda x: stochastic_score(x, x, taken=x[:1], keep=1, pull=1, deviation=1), "step that was taken is"),
        (
            lambda x: stochastic_score(x, x, taken=x.clone().requires_grad_(), keep=1, pull=1, deviation=1),
            "taken requires a gradient, and a score has none for it",
        ),
    ],
)
def test_steps_that_do_not_fit_are_refused(call: object, sentence: str) -> None:
    """One sentence with what was given."""
    assert callable(call)
    with pytest.raises(ValueError, match=sentence):
        call(torch.randn(2, 5))


def test_steps_are_their_formulas() -> None:
    """Euler's to the last bit, and a stochastic step's log-probability is that of a normal density."""
    x, v, noise = (torch.randn(2, 4, 3) for _ in range(3))
    assert torch.equal(euler_step(x, v, change=-0.05), x + -0.05 * v)
    out, found = stochastic_step(x, v, noise=noise, keep=0.9, pull=-0.1, deviation=0.3)
    density = torch.distributions.Normal(0.9 * x - 0.1 * v, 0.3)
    assert torch.allclose(found, density.log_prob(out).sum((1, 2)), atol=1e-4)
    again = stochastic_score(x, v, taken=out, keep=0.9, pull=-0.1, deviation=0.3)
    assert torch.allclose(again, found, atol=1e-4), "the score of a draw is the draw's own"


def test_a_score_has_the_gradients_of_its_formula() -> None:
    """Of both velocities, guided by a factor for each film, and of the one that is not guided."""
    x, taken = (torch.randn(2, 5, dtype=torch.float64) for _ in range(2))
    velocities = [torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    scales = torch.tensor([1.5, 4.0], dtype=torch.float64)
    facts = {"taken": taken, "keep": 0.9, "pull": -0.1, "deviation": 0.3}
    assert torch.autograd.gradcheck(lambda v, u: stochastic_score(x, v, u, scales, **facts), tuple(velocities))
    assert torch.autograd.gradcheck(lambda v: stochastic_score(x, v, **facts), tuple(velocities[:1]))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("cached", [0, 1, 2])
def test_a_convolution_by_onednn_is_the_reference(cached: int) -> None:
    """The default in fp32 on a CPU, with and without frames from before, at a size that torch convolves by itself."""
    g = torch.Generator().manual_seed(cached)
    x, taps = torch.randn(1, 8, 3, 6, 5, generator=g), torch.randn(4, 8, 3, 3, 3, generator=g)
    cache = torch.randn(1, 8, cached, 6, 5, generator=g) if cached else None
    with recorded() as ran:
        got = causal_conv3d(x, taps, cache=cache, padding=(1, 1))
        with using(Implementation.REFERENCE):
            want = causal_conv3d(x, taps, cache=cache, padding=(1, 1))
    assert [way for _, way in ran] == [Implementation.ONEDNN, Implementation.REFERENCE]
    assert got.stride() == want.stride()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
