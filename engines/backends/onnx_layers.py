"""Where a module's linear layers are in an ONNX graph of it: an exporter keeps a layer's weight and not its name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from engines.errors import BuildRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProduct:
    """A product by a layer's weight [N, D]; the graph holds it as `kind` (of ONNX), as [D, N] where it is `turned`."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    kind: int
    turned: bool


def layer_products(model: onnx.ModelProto, module: nn.Module, layers: frozenset[str]) -> dict[str, LayerProduct]:
    """By layer the node that multiplies by its weight, found by the weight's content.

    BuildRefused for a layer that the graph has no trace of, or whose weight another one has as well.
    """
    wanted = {_digest(_weight(module, name)): name for name in layers}
    if len(wanted) < len(layers):
        raise BuildRefused("two layers to be quantized have the same weights, so that a graph cannot tell them apart")
    constants = {c.name: c for c in model.graph.initializer}
    found: dict[str, LayerProduct] = {}
    for node in model.graph.node:
        if node.op_type not in {"MatMul", "Gemm"} or node.input[1] not in constants:
            continue
        matrix = numpy_helper.to_array(constants[node.input[1]])
        if matrix.ndim != 2:
            continue
        turned = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        matrix = matrix if turned else matrix.T
        name = wanted.get(_digest(matrix))
        if name is not None:
            kind = constants[node.input[1]].data_type
            found[name] = LayerProduct(node=node, weight=matrix.astype(np.float32), kind=kind, turned=not turned)
    missing = sorted(layers - found.keys())
    if missing:
        raise BuildRefused(f"{len(missing)} layers to be quantized are not in the exported graph, {missing[0]} for one")
    return found


def packed_halves(numbers: NDArray[np.uint8]) -> bytes:
    """Numbers whose lower four bits count, two in each byte, the first in the lower half, as ONNX stores them."""
    flat = np.ascontiguousarray(numbers).ravel()
    halves = np.pad(flat & 0xF, (0, flat.size % 2))
    return (halves[0::2] | (halves[1::2] << 4)).tobytes()


def _weight(module: nn.Module, name: str) -> NDArray[np.float32]:
    weight = module.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    plain = weight.detach().cpu()
    return plain.numpy() if plain.dtype != torch.bfloat16 else plain.view(torch.uint16).numpy()


def _digest(matrix: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(matrix).tobytes()).hexdigest()
