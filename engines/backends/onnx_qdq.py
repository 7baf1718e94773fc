"""Linear layers of an ONNX graph with QuantizeLinear and DequantizeLinear around them, in int8 or fp8, for TensorRT.

Weights are rounded by output channel; inputs by one scale for the tensor, from what calibration saw. N output channels,
D input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from engines.backends.onnx_layers import LayerProduct, layer_products

EightBits = Literal["int8", "fp8"]
_LARGEST = {"int8": 127.0, "fp8": 448.0}
_STORED = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
_ROUNDED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def quantize_layers(graph: Path, module: nn.Module, largest: Mapping[str, float], form: EightBits) -> None:
    """Rewrites the graph of `module` in place: the layers of `largest` in 8 bits, their inputs up to so much.

    BuildRefused for a layer that the graph has no trace of.
    """
    model = onnx.load(graph)
    for name, product in layer_products(model, module, frozenset(largest)).items():
        node = product.node
        where = list(model.graph.node).index(node)
        before = [*_input_nodes(model, name, product, largest[name] / _LARGEST[form], form)]
        before += _weight_nodes(model, name, product, form)
        node.input[0], node.input[1] = f"{name}.x", f"{name}.w"
        for offset, added in enumerate(before):
            model.graph.node.insert(where + offset, added)
    _drop_unused(model)
    onnx.save(model, graph)


def _input_nodes(
    model: onnx.ModelProto, name: str, product: LayerProduct, scale: float, form: EightBits
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    model.graph.initializer.append(helper.make_tensor(f"{name}.x_scale", product.kind, [], [max(scale, 1e-7)]))
    model.graph.initializer.append(helper.make_tensor(f"{name}.x_zero", _STORED[form], [], [0]))
    ends = [f"{name}.x_scale", f"{name}.x_zero"]
    return (
        helper.make_node("QuantizeLinear", [product.node.input[0], *ends], [f"{name}.x8"]),
        helper.make_node("DequantizeLinear", [f"{name}.x8", *ends], [f"{name}.x"]),
    )


def _weight_nodes(model: onnx.ModelProto, name: str, product: LayerProduct, form: EightBits) -> list[onnx.NodeProto]:
    """A constant in 8 bits of the weight, laid out as the product takes it."""
    scale = np.maximum(np.abs(product.weight).max(1), 1e-7) / _LARGEST[form]
    ratio = torch.from_numpy(product.weight / scale[:, None])
    rounded = (ratio.round() if form == "int8" else ratio).to(_ROUNDED[form])
    laid_out = rounded.T.contiguous() if product.turned else rounded
    shape, raw = list(laid_out.shape), laid_out.view(torch.uint8).numpy().tobytes()
    model.graph.initializer.extend(
        [
            TensorProto(name=f"{name}.w8", data_type=_STORED[form], dims=shape, raw_data=raw),
            helper.make_tensor(f"{name}.w_scale", product.kind, [len(scale)], scale.tolist()),
            helper.make_tensor(f"{name}.w_zero", _STORED[form], [len(scale)], [0] * len(scale)),
        ]
    )
    ends = [f"{name}.w8", f"{name}.w_scale", f"{name}.w_zero"]
    return [helper.make_node("DequantizeLinear", ends, [f"{name}.w"], axis=1 if product.turned else 0)]


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [c for c in model.graph.initializer if c.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
