"""A linear layer of an ONNX graph in NVFP4, as TensorRT reads it: its own node rounds inputs, two scales undo it.

N output channels, D input channels.
"""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto, helper

from engines.backends.onnx_layers import LayerProduct, packed_halves
from engines.quantization import nvfp4
from engines.quantization.forms import rounded_weight

_DOMAIN, _OPSET, _IR = "trt", 23, 11  # ONNX has had numbers of E2M1 since


def nvfp4_nodes(model: onnx.ModelProto, name: str, product: LayerProduct, largest: float) -> list[onnx.NodeProto]:
    """The nodes that make `name`.x of the product's input, and `name`.w of its weight; the graph is of ONNX 23 then."""
    model.ir_version = max(model.ir_version, _IR)
    for imported in model.opset_import:
        if imported.domain == "":
            imported.version = max(imported.version, _OPSET)
    if not any(imported.domain == _DOMAIN for imported in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return [*_inputs(model, name, product, largest), *_weight(model, name, product)]


def _inputs(model: onnx.ModelProto, name: str, product: LayerProduct, largest: float) -> list[onnx.NodeProto]:
    whole, four, eight = f"{name}.x_whole", f"{name}.x4", f"{name}.x_scale8"
    model.graph.initializer.append(helper.make_tensor(whole, TensorProto.FLOAT, [], [nvfp4.tensor_scale(largest)]))
    rounding = helper.make_node(
        "TRT_FP4DynamicQuantize",
        [product.node.input[0], whole],
        [four, eight],
        domain=_DOMAIN,
        axis=-1,
        block_size=nvfp4.BLOCK,
        scale_type=TensorProto.FLOAT8E4M3FN,
    )
    return [rounding, *_undone(name, "x", four, eight, whole, product.kind)]


def _weight(model: onnx.ModelProto, name: str, product: LayerProduct) -> list[onnx.NodeProto]:
    """As [N, D], for blocks lie along the last axis, and turned afterwards where the product takes [D, N]."""
    rounded = rounded_weight(torch.from_numpy(product.weight), "nvfp4")
    scale8 = (rounded.scale / rounded.whole).to(torch.float8_e4m3fn)
    whole, four, eight = f"{name}.w_whole", f"{name}.w4", f"{name}.w_scale8"
    model.graph.initializer.extend(
        [
            helper.make_tensor(whole, TensorProto.FLOAT, [], [rounded.whole]),
            TensorProto(
                name=four,
                data_type=TensorProto.FLOAT4E2M1,
                dims=list(rounded.steps.shape),
                raw_data=packed_halves(nvfp4.codes(rounded.steps).numpy()),
            ),
            TensorProto(
                name=eight,
                data_type=TensorProto.FLOAT8E4M3FN,
                dims=list(scale8.shape),
                raw_data=scale8.view(torch.uint8).numpy().tobytes(),
            ),
        ]
    )
    if not product.turned:
        return _undone(name, "w", four, eight, whole, product.kind)
    *nodes, cast = _undone(name, "w", four, eight, whole, product.kind)
    cast.output[0] = f"{name}.w_rows"
    return [*nodes, cast, helper.make_node("Transpose", [f"{name}.w_rows"], [f"{name}.w"], perm=[1, 0])]


def _undone(name: str, what: str, four: str, eight: str, whole: str, kind: int) -> list[onnx.NodeProto]:
    """Nodes that make `name`.`what`, in the graph's own precision, of numbers of 4 bits and their scales."""
    scale, wide = f"{name}.{what}_scale", f"{name}.{what}32"
    return [
        helper.make_node("DequantizeLinear", [eight, whole], [scale]),
        helper.make_node("DequantizeLinear", [four, scale], [wide], axis=-1, block_size=nvfp4.BLOCK),
        helper.make_node("Cast", [wide], [f"{name}.{what}"], to=kind),
    ]
