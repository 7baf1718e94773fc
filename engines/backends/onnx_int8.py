"""Linear layers of an ONNX graph in int8: weights by output channel, inputs as they come (dynamic), by ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from engines.backends.onnx_layers import layer_products


def round_layers(graph: Path, module: nn.Module, layers: frozenset[str]) -> None:
    """Rewrites the graph of `module` in place, with `layers` in int8; BuildRefused for one that it has no trace of."""
    nodes = [product.node.name for product in layer_products(onnx.load(graph), module, layers).values()]
    with tempfile.TemporaryDirectory(dir=graph.parent) as folder:
        rounded = Path(folder) / "rounded.onnx"
        logging.disable(logging.WARNING)  # it recommends a preparation that an exported graph has had
        try:
            quantize_dynamic(
                graph,
                rounded,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_quantize=sorted(nodes),
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        finally:
            logging.disable(logging.NOTSET)
        rounded.replace(graph)
