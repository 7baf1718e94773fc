"""A part as an ONNX graph, which ONNX Runtime, OpenVINO and TensorRT each read."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnxscript  # noqa: F401  torch's exporter needs it, and says so late and at length
import torch

from engines.parts import ModelPart

OPSET = 21


def write_onnx(part: ModelPart, target: Path) -> None:
    """Writes the graph of `part` with its weights beside it where they are larger than a protobuf may be."""
    noisy = logging.getLogger("torch.onnx")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(part.module, part.examples, dynamic_shapes=part.dynamic)
            exported = torch.onnx.export(
                program, (), None, dynamo=True, opset_version=OPSET, input_names=part.inputs, verbose=False
            )
    finally:
        noisy.setLevel(before)
    assert exported is not None
    exported.save(str(target))
