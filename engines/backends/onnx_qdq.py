"""Linear layers of an ONNX graph with QuantizeLinear and DequantizeLinear around them: what OpenVINO and TensorRT read.

Weights are constants in fewer bits, one scale an output channel, or one a block of input channels for int4; inputs have
one scale for the tensor, from what calibration saw, or stay as they are where weights alone are rounded. N output
channels, D input channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from engines.backends.onnx_layers import LayerProduct, layer_products, packed_halves
from engines.backends.onnx_nvfp4 import nvfp4_nodes
from engines.quantization.forms import BLOCKS, STATIC_INPUTS, Form, QuantizedLayers, input_scale, rounded_weight

_STORED: dict[Form, int] = {
    "int8-static": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "int8-weights": TensorProto.INT8,
    "int4-weights": TensorProto.INT4,
}


def quantize_layers(graph: Path, module: nn.Module, layers: QuantizedLayers, *, bits: int = 8) -> None:
    """Rewrites the graph of `module` in place: `layers` in their form, int8 weights with so many of their `bits`.

    BuildRefused for a layer that the graph has no trace of.
    """
    model = onnx.load(graph)
    for name, product in layer_products(model, module, layers.names).items():
        node = product.node
        where = list(model.graph.node).index(node)
        before: list[onnx.NodeProto] = []
        if layers.form == "nvfp4":
            before += nvfp4_nodes(model, name, product, layers.largest[name])
            node.input[0] = f"{name}.x"
        elif layers.form in STATIC_INPUTS:
            before += _input_nodes(model, name, product, input_scale(layers.largest[name], layers.form), layers.form)
            node.input[0] = f"{name}.x"
        if layers.form != "nvfp4":
            before.append(_weight_node(model, name, product, layers.form, bits))
        node.input[1] = f"{name}.w"
        for offset, added in enumerate(before):
            model.graph.node.insert(where + offset, added)
    _drop_unused(model)
    onnx.save(model, graph)


def _input_nodes(
    model: onnx.ModelProto, name: str, product: LayerProduct, scale: float, form: Form
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    model.graph.initializer.append(helper.make_tensor(f"{name}.x_scale", product.kind, [], [scale]))
    model.graph.initializer.append(helper.make_tensor(f"{name}.x_zero", _STORED[form], [], [0]))
    ends = [f"{name}.x_scale", f"{name}.x_zero"]
    return (
        helper.make_node("QuantizeLinear", [product.node.input[0], *ends], [f"{name}.x8"]),
        helper.make_node("DequantizeLinear", [f"{name}.x8", *ends], [f"{name}.x"]),
    )


def _weight_node(model: onnx.ModelProto, name: str, product: LayerProduct, form: Form, bits: int) -> onnx.NodeProto:
    """A constant of the weight in few bits, laid out as the product takes it, and the node that makes it a number."""
    rounded = rounded_weight(torch.from_numpy(product.weight), form, bits=bits)
    steps, scale = (x.T.contiguous() if product.turned else x for x in (rounded.steps, rounded.scale))
    channels, inputs = (1, 0) if product.turned else (0, 1)
    blocks = rounded.scale.shape[1] > 1
    if not blocks:
        scale = scale.flatten()
    model.graph.initializer.extend(
        [
            TensorProto(
                name=f"{name}.w8", data_type=_STORED[form], dims=list(steps.shape), raw_data=_stored(steps, form)
            ),
            helper.make_tensor(f"{name}.w_scale", product.kind, list(scale.shape), scale.flatten().tolist()),
            TensorProto(
                name=f"{name}.w_zero",
                data_type=_STORED[form],
                dims=list(scale.shape),
                raw_data=_stored(torch.zeros_like(scale, dtype=steps.dtype), form),
            ),
        ]
    )
    ends, made = [f"{name}.w8", f"{name}.w_scale", f"{name}.w_zero"], [f"{name}.w"]
    if blocks:
        return helper.make_node("DequantizeLinear", ends, made, axis=inputs, block_size=BLOCKS[form])
    return helper.make_node("DequantizeLinear", ends, made, axis=channels)


def _stored(steps: Tensor, form: Form) -> bytes:
    """The bytes of a constant; of int4 two in each, the first in the lower half."""
    each = np.ascontiguousarray(steps.view(torch.uint8).numpy())
    return packed_halves(each) if form == "int4-weights" else each.tobytes()


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [c for c in model.graph.initializer if c.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
