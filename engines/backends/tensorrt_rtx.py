"""TensorRT for RTX: engines for NVIDIA GPUs that need not be there when they are built. None was run yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorrt_rtx
import torch

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_qdq import quantize_layers
from engines.backends.tensorrt_engine import serialized_engine
from engines.backends.tensorrt_running import running_engine
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class TensorRtRtx:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("tensorrt-rtx",)
    portable = False
    kind = "tensorrt-rtx"
    suffix = ".rtx"
    quantizes: frozenset[Form] = frozenset({"int8-static", "fp8", "nvfp4", "int8-weights", "int4-weights"})
    own_operators = False
    library: Any = tensorrt_rtx

    def compile(self, part: ModelPart, target: Path) -> None:
        """For the GPU at hand."""
        self.compile_for(part, target, ())

    def compile_for(self, part: ModelPart, target: Path, capabilities: Sequence[str]) -> None:
        """For GPUs by capability ("sm_89"), which need not be here.

        BuildRefused, in TensorRT's words, for a type that one of them has not.
        """
        with TemporaryDirectory() as folder:
            graph = Path(folder) / "graph.onnx"
            write_onnx(part, graph)
            if part.quantized:
                quantize_layers(graph, part.module, part.quantized)
            target.write_bytes(serialized_engine(self.library, graph, part, capabilities=capabilities))

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        return running_engine(self.library, path, device)


FORM = TensorRtRtx()
