"""ONNX Runtime: a part as an ONNX graph, optimised and run by its CPU provider."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_int8 import round_layers
from engines.backends.onnx_qdq import quantize_layers
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class OnnxRuntime:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("onnxruntime",)
    portable = True
    kind = "onnx"
    suffix = ".onnx"
    quantizes: frozenset[Form] = frozenset({"int8", "int8-weights", "int4-weights"})
    own_operators = False

    def compile(self, part: ModelPart, target: Path) -> None:
        write_onnx(part, target)
        if part.quantized and part.quantized.form == "int8":
            round_layers(target, part.module, part.quantized.names)
        elif part.quantized:
            quantize_layers(target, part.module, part.quantized)

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait would take a core from whoever shares the host.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights in few bits are multiplied in float32; it would round inputs to 8 bits as well.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
        names = [found.name for found in session.get_inputs()]

        def call(*inputs: torch.Tensor) -> torch.Tensor:
            feed = {name: x.contiguous().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
            (out,) = session.run(None, feed)
            return torch.from_numpy(out).to(device)

        return call


FORM = OnnxRuntime()
