"""TensorRT: engines for the NVIDIA GPU at hand, by an ONNX graph. Neither built nor run yet: it wants a GPU host."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import tensorrt
import torch

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_qdq import quantize_layers
from engines.backends.tensorrt_engine import serialized_engine
from engines.backends.tensorrt_running import running_engine
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class TensorRt:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("tensorrt",)
    portable = False
    kind = "tensorrt"
    suffix = ".trt"
    quantizes: frozenset[Form] = frozenset({"int8-static", "fp8", "nvfp4", "int8-weights", "int4-weights"})
    own_operators = False

    def compile(self, part: ModelPart, target: Path) -> None:
        with TemporaryDirectory() as folder:
            graph = Path(folder) / "graph.onnx"
            write_onnx(part, graph)
            if part.quantized:
                quantize_layers(graph, part.module, part.quantized)
            # What the builder timed once it need not time again, whatever part or model asks.
            timings = target.parent / "tensorrt.timings"
            target.write_bytes(serialized_engine(tensorrt, graph, part, timing_cache=timings))

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        return running_engine(tensorrt, path, device)


FORM = TensorRt()
