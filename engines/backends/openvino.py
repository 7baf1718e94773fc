"""OpenVINO: a part as an ONNX graph, compiled for the processor at hand when it is loaded."""

from __future__ import annotations

from pathlib import Path

import openvino
import torch

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_qdq import quantize_layers
from engines.host import sums_of_bytes_saturate
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class OpenVino:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("openvino",)
    portable = True
    kind = "onnx"
    suffix = ".onnx"
    quantizes: frozenset[Form] = frozenset({"int8-static", "int8-weights", "int4-weights"})
    own_operators = False

    def compile(self, part: ModelPart, target: Path) -> None:
        write_onnx(part, target)
        if part.quantized:
            # Without VNNI products of bytes are summed in 16 bits; a bit less of weights leaves them room.
            bits = 7 if part.quantized.form == "int8-static" and sums_of_bytes_saturate() else 8
            quantize_layers(target, part.module, part.quantized, bits=bits)

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            # On processors that have bf16 it would compute in that without being asked.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(core.read_model(path), "CPU", settings)

        def call(*inputs: torch.Tensor) -> torch.Tensor:
            found = compiled([x.contiguous().cpu().numpy() for x in inputs])
            return torch.from_numpy(found[0].copy()).to(device)

        return call


FORM = OpenVino()
