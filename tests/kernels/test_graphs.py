"""Operators in graphs: each stays whole, and what is said of it without running it is true when it runs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.library import opcheck

from kernels import stochastic  # noqa: F401  it and what it imports define operators
from kernels.attention import attention, int8_attention
from kernels.conv3d import causal_conv3d
from kernels.dispatch import Implementation, recorded, using
from kernels.masks import BlockCausal, code_of
from kernels.modulated_norm import gated_norm
from kernels.quantized import quantize_rows, quantized_linear, quantized_norm
from kernels.residual import gated_residual
from kernels.rope3d import qk_norm_rope


def _draw(*shape: int, learns: bool = False) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=learns)


def _norms() -> Iterator[tuple[str, tuple[Any, ...]]]:
    x, y = (_draw(2, 5, 8, learns=True) for _ in range(2))
    each, one, row = _draw(2, 5, 8, learns=True), _draw(2, 1, 8, learns=True), _draw(8, learns=True)
    yield "modulated_norm", (x, one, one, None, None, 1e-6, False)
    yield "modulated_norm", (x, each, each, row, row, 1e-6, True)
    yield "gated_norm", (x, y, one, one, one, None, None, 1e-6, False)
    yield "gated_norm", (x, y, None, None, None, row, row, 1e-6, False)
    yield "gated_residual", (x, y, one)
    yield "gated_residual", (x, y, None)
    plain = x.detach()
    yield "norm_backward", (plain, plain, plain, plain, one.detach(), one.detach(), None, None, 1e-6, False)
    # As diffusers has angles: every other value of a wider table.
    cos, sin = _draw(5, 4)[:, 0::2], _draw(5, 4)[:, 1::2]
    yield "qk_norm_rope", (x, y, row, row, cos, sin, 2, 1e-6)
    yield "qk_norm_rope", (x, y, row, row, None, None, 2, 1e-6)


def _products() -> Iterator[tuple[str, tuple[Any, ...]]]:
    heads, mask = _draw(2, 6, 2, 8, learns=True), code_of(BlockCausal(chunk=2))
    yield "attention", (heads, heads, heads, mask, 0.3)
    yield "attention", (heads, heads, heads, code_of(None), 0.3)
    fixed = heads.detach()
    yield "int8_attention", (fixed, fixed, fixed, mask, 0.3)
    x, weight = _draw(2, 6, 8), _draw(4, 8)
    for form in (torch.int8, torch.float8_e4m3fn):
        yield "quantize_rows", (x, form)
        yield "quantized_norm", (x, _draw(2, 1, 8), _draw(2, 1, 8), None, None, 1e-6, False, form)
    rows, columns = quantize_rows(x), quantize_rows(weight)
    sides = rows.values, rows.scales, columns.values, columns.scales
    yield "quantized_linear", (*sides, _draw(4), _draw(2, 6, 4), _draw(2, 1, 4), torch.float16, True)
    film, taps, cache = (_last(*shape) for shape in ((1, 2, 3, 4, 4), (2, 2, 3, 3, 3), (1, 2, 2, 4, 4)))
    yield "causal_conv3d", (film, taps, None, cache, [1, 1])
    # One channel out, or one pixel: layouts that torch cannot tell apart.
    yield "causal_conv3d", (film, _last(1, 2, 3, 3, 3), None, None, [1, 1])
    yield "causal_conv3d", (_last(1, 2, 1, 1, 1), _last(2, 2, 1, 1, 1), None, None, [0, 0])


def _last(*shape: int) -> torch.Tensor:
    return _draw(*shape).contiguous(memory_format=torch.channels_last_3d)


def _steps() -> Iterator[tuple[str, tuple[Any, ...]]]:
    for dtype in (torch.float32, torch.float64):
        x, v, u, noise = (_draw(2, 9).to(dtype) for _ in range(4))
        scales = torch.ones(2, dtype=dtype)
        yield "euler_step", (x, v, u, scales, -0.1)
        yield "euler_step", (x, v, None, None, -0.1)
        yield "unipc_step", (x, v, u, scales, noise, noise, noise, [0.5, 0.1, 0.2, 0.3, 0.4, 0.9, 0.1, -0.1])
        yield "unipc_step", (x, v, None, None, noise, noise, noise, [0.5, 0.0, 0.0, 0.0, 0.0, 0.9, 0.1, 0.0])
        yield "stochastic_step", (x, v, u, scales, noise, 0.9, -0.1, 0.3)
        learnt = v.clone().requires_grad_(), u.clone().requires_grad_()
        yield "stochastic_score", (x, *learnt, scales, noise, 0.9, -0.1, 0.3)
        yield "stochastic_score", (x, learnt[0], None, None, noise, 0.9, -0.1, 0.3)
        yield "stochastic_score_backward", (scales, x, v, u, scales, noise, 0.9, -0.1, 0.3)


@pytest.mark.parametrize(
    "way", [Implementation.REFERENCE, pytest.param(Implementation.INTERPRETER, marks=pytest.mark.long)], ids=str
)
@pytest.mark.parametrize("group", [_norms, _products, _steps])
def test_what_is_said_of_an_operator_is_true(group: Any, way: Implementation) -> None:
    """torch's own check of schema, shapes, strides, dtypes and gradients, for reference and twin alike."""
    torch.manual_seed(0)
    for name, arguments in group():
        if way is Implementation.INTERPRETER and any(
            isinstance(a, torch.Tensor) and a.dtype is torch.float64 for a in arguments
        ):
            continue
        with using(way):
            opcheck(getattr(torch.ops.rushes, name).default, arguments)


def test_int8_attention_is_flattened_in_a_compiled_graph() -> None:
    """Where its heads are joined right behind it, as in a block of Wan, the strides must be what was promised."""
    q = torch.randn(2, 6, 2, 8)
    with torch.no_grad():
        torch.compiler.reset()
        joined = torch.compile(lambda x: int8_attention(x, x, x).flatten(2), fullgraph=True, backend="aot_eager")
        assert torch.equal(joined(q), int8_attention(q, q, q).flatten(2))


class _Attends(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return attention(self.scale * x, x, x)


def test_attention_of_a_model_that_could_learn_is_exported_whole() -> None:
    """With weights that want gradients too; and where they are wanted, what attends is said."""
    module, x = _Attends(), torch.randn(1, 4, 2, 8)
    exported = torch.export.export(module, (x,))
    assert "rushes.attention.default" in {str(node.target) for node in exported.graph.nodes}
    with recorded() as ran:
        module(x).sum().backward()
    assert ran == [("attention", Implementation.SDPA)]


def test_a_backward_is_computed_as_its_forward_was() -> None:
    """Though a GPU's backward runs in a thread that has not heard what was asked for."""

    x = torch.randn(1, 3, 8, requires_grad=True)
    with recorded() as ran, using(Implementation.INTERPRETER):
        residual, y = gated_norm(x, x, None)
    other = threading.Thread(target=(residual + y).sum().backward)
    other.start()
    other.join()
    assert ran == [("gated_norm", Implementation.INTERPRETER), ("norm_backward", Implementation.INTERPRETER)]


class _Norms(torch.nn.Module):
    def forward(self, x: torch.Tensor, branch: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        residual, y = gated_norm(x, branch, m, scale=m, shift=m)
        q, k = qk_norm_rope(residual, y, m[0, 0], m[0, 0], heads=2)
        return q + k


def test_operators_stay_whole_in_a_graph() -> None:
    """torch.export and torch.compile (no graph break) keep each as one node, and the numbers."""
    inputs = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    want = _Norms()(*inputs)
    exported = torch.export.export(_Norms(), inputs)
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"rushes.gated_norm.default", "rushes.qk_norm_rope.default"} <= names
    assert torch.equal(exported.module()(*inputs), want)
    torch.compiler.reset()
    assert torch.allclose(torch.compile(_Norms(), fullgraph=True, backend="aot_eager")(*inputs), want)


class _Products(torch.nn.Module):
    def forward(self, x: torch.Tensor, weight: torch.Tensor, film: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        rounded = quantized_norm(x)
        y = quantized_linear(rounded, quantize_rows(weight), dtype=x.dtype, gelu=True, residual=x)
        heads = gated_residual(x, y, None).unflatten(2, (2, -1))
        seen = attention(heads, heads, heads, mask=BlockCausal(chunk=2)) + int8_attention(heads, heads, heads)
        return seen.sum() + causal_conv3d(film, taps, padding=(1, 1)).sum()


def test_products_stay_whole_in_a_graph() -> None:
    """The same for attention, products in 8 bits and the convolution."""
    inputs = torch.randn(2, 6, 8), torch.randn(8, 8), torch.randn(1, 2, 3, 4, 4), torch.randn(2, 2, 3, 3, 3)
    with torch.no_grad():
        want = _Products()(*inputs)
        exported = torch.export.export(_Products(), inputs)
        names = {
            str(node.target).removeprefix("rushes.") for node in exported.graph.nodes if "rushes." in str(node.target)
        }
        whole = ("quantized_norm", "quantize_rows", "quantized_linear", "gated_residual", "attention", "int8_attention")
        assert names == {f"{name}.default" for name in (*whole, "causal_conv3d")}
        assert torch.equal(exported.module()(*inputs), want)
        torch.compiler.reset()
        assert torch.allclose(torch.compile(_Products(), fullgraph=True, backend="aot_eager")(*inputs), want)


class _Block(torch.nn.Module):
    """A little of everything that a block of Wan calls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.linear = torch.nn.Parameter(torch.randn(8)), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        residual, y = gated_norm(x, x, m, scale=m, shift=m)
        q, k = qk_norm_rope(residual, y, self.weight, self.weight, heads=2)
        seen = attention(q, k, self.linear(y).unflatten(2, (2, -1))).flatten(2)
        rounded, weight = quantized_norm(seen), quantize_rows(self.linear.weight)
        x = quantized_linear(rounded, weight, dtype=x.dtype, residual=x)
        return gated_residual(x, int8_attention(q, k, k, mask=BlockCausal(chunk=2)).flatten(2), m)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # torch's own, of what it does in there
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler, and there is none")
def test_operators_stay_whole_in_a_compiled_package(tmp_path: Path) -> None:
    """AOTInductor's package, written and loaded again, calls them and gives the numbers of the module."""
    module, inputs = _Block().eval(), (torch.randn(2, 5, 8), torch.randn(2, 1, 8))
    with torch.no_grad():
        want = module(*inputs)
        exported = torch.export.export(module, inputs)
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "block.pt2"))
        package = torch._inductor.aoti_load_package(path)
        with recorded() as ran:
            got = package(*inputs)
    torch.testing.assert_close(got, want)
    assert {name for name, _ in ran} == {
        *("gated_norm", "qk_norm_rope", "attention", "quantized_norm", "quantize_rows", "quantized_linear"),
        *("gated_residual", "int8_attention"),
    }
