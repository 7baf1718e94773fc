"""Smoothing changes no output, errors of layers add up as squares, and what bears 8 bits is what is rounded."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from engines.backends.compiled import find_form
from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_int8 import round_layers
from engines.errors import BuildRefused
from engines.host import sums_of_bytes_saturate
from engines.parts import ModelPart
from engines.quantization.calibration import Recorder
from engines.quantization.forms import BLOCKS, Form, QuantizedLayers, bears, rounded_input, rounded_weight
from engines.quantization.sensitivity import bearable, layer_errors, smooth
from engines.quantization.smoothing import smoothing_scale


class Net(nn.Module):
    """Two layers over many rows, and one over a single row, as a time is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.time = nn.Linear(32, 48), nn.Linear(48, 16), nn.Linear(4, 48)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.gelu(self.first(x) + self.time(time)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    return Net().eval().requires_grad_(requires_grad=False)


def _inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with one input channel forty times as large as the others."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 20, 32, generator=g)
    x[..., 5] *= 40
    return x, torch.randn(1, 4, generator=g)


def _recorded(net: Net) -> Recorder:
    recorder = Recorder(net, keep_every=2)
    net.first(torch.full((1, 32), 1e6))  # outside of a call: none of this module's work
    with recorder.watching():
        net.first(torch.full((1, 32), 1e6))
        for seed in range(4):
            recorder(*_inputs(seed))
    return recorder


def _part(net: Net) -> ModelPart:
    return ModelPart(name="net", module=net, inputs=("x", "time"), examples=_inputs(), dynamic=({1: None}, None))


def test_what_was_seen_is_of_the_modules_own_calls(net: Net) -> None:
    """Largest values by channel, every second input whole, and no layer that a single row goes through."""
    seen = _recorded(net).seen
    want = torch.stack([_inputs(seed)[0].flatten(0, 1).abs().amax(0) for seed in range(4)]).amax(0)
    torch.testing.assert_close(seen.largest["first"], want)
    assert len(seen.inputs) == 2
    assert seen.worthwhile == ["first", "second"]


def test_smoothing_is_the_papers_and_changes_nothing(net: Net) -> None:
    """s = max|x|^a / max|w|^(1-a); the function stays, and its input is rounded at less loss."""
    largest, weight = torch.tensor([8.0, 0.5, 0.0]), torch.tensor([[2.0, 1.0, 3.0], [-0.5, 0.25, 1.0]])
    scale = smoothing_scale(largest, weight, 0.5)
    torch.testing.assert_close(scale, torch.tensor([2.0, math.sqrt(0.5), 1.0]))
    recorder = _recorded(net)
    before, errors = net(*_inputs(9)), _errors(net, recorder.seen.inputs, ["first"])
    smooth(net, recorder.seen, ["first"], 0.5)
    torch.testing.assert_close(net(*_inputs(9)), before, atol=1e-4, rtol=1e-4)
    assert _errors(net, recorder.seen.inputs, ["first"])["first"] < 0.5 * errors["first"]


def test_errors_are_measured_and_leave_the_module_as_it_was(net: Net) -> None:
    """Each is small, none is zero, and afterwards the module computes what it did."""
    inputs = _recorded(net).seen.inputs
    before = net(*inputs[0])
    errors = _errors(net, inputs, ["first", "second"])
    assert all(0 < error < 0.2 for error in errors.values())
    assert torch.equal(net(*inputs[0]), before)


def test_the_most_sensitive_layers_are_left() -> None:
    """Squares are added up from the least; a layer without a number is never rounded."""
    errors = {"a": 0.03, "b": 0.04, "c": 0.2, "d": float("nan")}
    assert bearable(errors, 0.05) == {"a", "b"}
    assert bearable(errors, 0.049) == {"a"}
    assert bearable(errors, 1.0) == {"a", "b", "c"}
    assert bearable({"d": float("nan")}, 1.0) == frozenset()


def _errors(net: Net, inputs: Sequence[tuple[torch.Tensor, ...]], layers: Sequence[str]) -> dict[str, float]:
    """Of W8A8 with inputs scaled at every call, for which what calibration saw does not matter."""
    return layer_errors(net, inputs, dict.fromkeys(layers, 0.0), "int8")


def _run(path: Path, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {found.name: x.numpy() for found, x in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feed)[0])


def test_processors_without_vnni_are_known() -> None:
    """By Linux's flags, whole words; one that nothing is known of counts as without."""
    if platform.machine() != "x86_64":
        pytest.skip("about x86-64 alone")
    assert sums_of_bytes_saturate("processor: 0\nflags\t\t: fpu avx2 avx512f\n")
    assert not sums_of_bytes_saturate("flags\t\t: avx2 avx512_vnni\n")
    assert not sums_of_bytes_saturate("flags\t\t: avx2 avx_vnni\n")
    assert sums_of_bytes_saturate("flags\t\t: avx512_vnni_no\n")
    assert sums_of_bytes_saturate("")


@pytest.mark.parametrize("without_vnni", [True, False])
def test_unsigned_weights_are_as_exact_anywhere(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_vnni: bool
) -> None:
    """What a processor without VNNI is given has the error that was foretold; the other form only where it holds."""
    if not without_vnni and sums_of_bytes_saturate():
        pytest.skip("this processor would saturate")
    monkeypatch.setattr("engines.backends.onnx_int8.sums_of_bytes_saturate", lambda: without_vnni)
    inputs = _inputs(1)
    want = net(*inputs).numpy()
    path = tmp_path / "net.onnx"
    write_onnx(_part(net), path)
    round_layers(path, net, frozenset({"first"}))
    error = np.linalg.norm(_run(path, inputs) - want) / np.linalg.norm(want)
    assert error < 2 * _errors(net, [inputs], ["first"])["first"]


def test_an_int8_graph_computes_what_was_foretold(net: Net, tmp_path: Path) -> None:
    """Rounded weights and inputs as they come: the error is the one that was measured beforehand."""
    inputs = _inputs(1)
    want = net(*inputs).numpy()
    foretold = _errors(net, [inputs], ["first"])["first"]
    path = tmp_path / "net.onnx"
    write_onnx(_part(net), path)
    assert np.allclose(_run(path, inputs), want, atol=1e-4)
    round_layers(path, net, frozenset({"first"}))
    error = np.linalg.norm(_run(path, inputs) - want) / np.linalg.norm(want)
    assert 0.5 * foretold < error < 2 * foretold


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("form", ["int8-static", "int8-weights", "int4-weights"])
def test_a_form_computes_what_was_foretold(net: Net, tmp_path: Path, form: Form, runtime: str) -> None:
    """OpenVINO and ONNX Runtime take the graph that TensorRT is given; its error is the one measured beforehand."""
    compiler = find_form(runtime)
    if form not in compiler.quantizes:
        pytest.skip(f"{runtime} is not given {form}")
    inputs = _inputs(1)
    want = net(*inputs)
    layers = QuantizedLayers(form=form, largest={"first": float(inputs[0].abs().max())})
    foretold = layer_errors(net, [inputs], layers.largest, form)["first"]
    path = tmp_path / "net.onnx"
    compiler.compile(replace(_part(net), quantized=layers), path)
    got = compiler.load(path, device=torch.device("cpu"))(*inputs)
    error = float((got - want).norm() / want.norm())
    # A bit of int8 weights is left unused where sums would saturate.
    assert 0.7 * foretold < error < (2.5 if form == "int8-static" and sums_of_bytes_saturate() else 1.4) * foretold


@pytest.mark.parametrize(("form", "most"), [("fp8", 0.04), ("int8-static", 0.004), ("int4-weights", 0.09)])
def test_a_rounded_weight_is_near_it(net: Net, form: Form, most: float) -> None:
    """As near as its bits allow, and every step is one that the form has."""
    weight = net.first.weight
    rounded = rounded_weight(weight, form)
    assert float((rounded.value - weight).norm() / weight.norm()) < most
    assert rounded.scale.shape == (48, 1)
    if form == "int4-weights":
        assert rounded.steps.dtype is torch.int8
        assert int(rounded.steps.min()) >= -8
        assert int(rounded.steps.max()) <= 7


def test_blocks_of_a_weight_have_scales_of_their_own() -> None:
    """A block of small weights keeps its own steps beside one of large ones; a weight that does not divide has none."""
    torch.manual_seed(1)
    block = BLOCKS["int4-weights"]
    weight = torch.cat([torch.randn(4, block), 1e-3 * torch.randn(4, block)], dim=1)
    value = rounded_weight(weight, "int4-weights").value
    small = weight[:, block:]
    assert float((value[:, block:] - small).norm() / small.norm()) < 0.1
    assert bears(weight, "int4-weights")
    assert not bears(weight[:, 1:], "int4-weights")
    assert bears(weight[:, 1:], "int8-weights")


def test_static_inputs_are_rounded_in_the_range_that_was_seen() -> None:
    """Values inside are off by half a step at most; those beyond are cut, which a range too small would show."""
    x = torch.linspace(-1, 1, 1001)
    assert float((rounded_input(x, "int8-static", 1.0) - x).abs().max()) <= 0.5 / 127 + 1e-6
    assert float(rounded_input(x, "int8-static", 0.5).max()) == pytest.approx(0.5)
    assert float((rounded_input(x, "fp8", 1.0) - x).abs().max()) <= 2**-4
    assert torch.equal(rounded_input(x, "int4-weights", 1.0), x)


def test_a_layer_that_is_not_in_the_graph_is_refused(net: Net, tmp_path: Path) -> None:
    """And so is one whose weights another has as well, since a graph keeps no names."""
    path = tmp_path / "net.onnx"
    write_onnx(_part(net), path)
    other = Net().eval()
    with pytest.raises(BuildRefused, match="are not in the exported graph, second for one"):
        round_layers(path, other, frozenset({"second"}))
    net.first.weight.copy_(torch.ones_like(net.first.weight))
    net.time = nn.Linear(32, 48)
    net.time.weight = net.first.weight
    with pytest.raises(BuildRefused, match="have the same weights"):
        round_layers(path, net, frozenset({"first", "time"}))
