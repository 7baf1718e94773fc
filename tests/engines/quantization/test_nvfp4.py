"""NVFP4 beside another implementation of its numbers, and what of it a graph for TensorRT holds."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_qdq import quantize_layers
from engines.parts import ModelPart
from engines.quantization import nvfp4
from engines.quantization.forms import QuantizedLayers, bears, rounded_input, rounded_weight


def test_steps_are_those_of_e2m1() -> None:
    """Every number between the largest two goes where ml_dtypes' conversion has it, ties and signs among them."""
    x = torch.cat([torch.linspace(-6, 6, 4801), torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -2.5])])
    padded = torch.nn.functional.pad(x, (0, -len(x) % 15)).unflatten(0, (-1, 15))
    # With a 6 in each block its scale is one, so that a step is worth one.
    blocks = torch.cat([torch.full((len(padded), 1), 6.0), padded], 1)
    steps, scale = nvfp4.blocks_rounded(blocks, nvfp4.tensor_scale(6.0))
    assert torch.allclose(scale, torch.ones_like(scale))
    theirs = blocks.numpy().astype(ml_dtypes.float4_e2m1fn)
    assert np.array_equal(steps.numpy(), theirs.astype(np.float32))
    assert np.array_equal(nvfp4.codes(steps).numpy() & 7, theirs.view(np.uint8) & 7)


def test_blocks_have_scales_of_their_own() -> None:
    """A block of small numbers is rounded as well as one of large ones; zeros stay zeros."""
    torch.manual_seed(0)
    weight = torch.cat([torch.randn(8, 16), 0.02 * torch.randn(8, 16), torch.zeros(8, 16)], 1)
    value = rounded_weight(weight, "nvfp4").value
    for block in (slice(0, 16), slice(16, 32)):
        assert float((value[:, block] - weight[:, block]).norm() / weight[:, block].norm()) < 0.12
    assert not value[:, 32:].any()
    assert not bears(weight[:, 1:], "nvfp4")
    x = torch.randn(2, 5, 32)
    error = (rounded_input(x, "nvfp4", float(x.abs().max())) - x).norm() / x.norm()
    assert 0.02 < float(error) < 0.12


@pytest.mark.parametrize("bias", [True, False])
def test_a_graph_holds_the_weight_that_was_measured(tmp_path: Path, *, bias: bool) -> None:
    """Its constants, decoded by ml_dtypes, are the rounded weight, whether the product takes it turned or not."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(32, 48, bias=bias)).eval().requires_grad_(requires_grad=False)
    x = torch.randn(4, 32) if bias else torch.randn(2, 4, 32)
    path = tmp_path / "net.onnx"
    write_onnx(ModelPart(name="net", module=net, inputs=("x",), examples=(x,), dynamic=(None,)), path)
    quantize_layers(path, net, QuantizedLayers(form="nvfp4", largest={"0": 4.0}))
    model = onnx.load(path)
    held = {c.name: c for c in model.graph.initializer}
    packed = np.frombuffer(held["0.w4"].raw_data, np.uint8)
    codes = np.stack([packed & 0xF, packed >> 4], -1).reshape(48, 32)
    steps = codes.astype(np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    scale8 = np.frombuffer(held["0.w_scale8"].raw_data, ml_dtypes.float8_e4m3fn).astype(np.float32).reshape(48, 2)
    whole = float(numpy_helper.to_array(held["0.w_whole"]))
    value = steps * np.repeat(scale8 * whole, 16, axis=1)
    weight = net.get_submodule("0").get_parameter("weight")
    assert np.allclose(value, rounded_weight(weight, "nvfp4").value.numpy(), atol=1e-7)
    assert {i.domain: i.version for i in model.opset_import} == {"": 23, "trt": 1}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("TRT_FP4DynamicQuantize") == 1
    assert kinds.count("DequantizeLinear") == 4
