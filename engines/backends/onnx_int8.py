"""Linear layers of an ONNX graph in int8: weights by output channel, inputs as they come (dynamic), by ONNX Runtime.

Inputs are unsigned. ONNX Runtime multiplies them with signed weights by one instruction, which saturates where a
processor has no VNNI: an error of 0.64 in place of 0.019 was seen. Unsigned weights are summed in 32 bits there, and a
product of 160 rows by 384 by 1536 takes 1.26 times as long (AMD EPYC, AVX2, one thread), still 0.76 of fp32's time.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from engines.backends.onnx_layers import layer_products
from engines.host import sums_of_bytes_saturate


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
                weight_type=QuantType.QUInt8 if sums_of_bytes_saturate() else QuantType.QInt8,
                per_channel=True,
            )
        finally:
            logging.disable(logging.NOTSET)
        rounded.replace(graph)
