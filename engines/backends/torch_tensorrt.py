"""torch-tensorrt: an exported program whose graph TensorRT compiles ahead of time. Neither built nor run yet.

Where a graph for ONNX is a detour: what TensorRT has no layer for stays torch's, in place of a refusal. A saved program
holds engines, which are code, so that only a package whose signature was checked comes here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch_tensorrt

from engines.backends.tensorrt_engine import profile_shapes
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form

_LIBRARY: Any = torch_tensorrt


class TorchTensorRt:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("torch", "torch-tensorrt", "tensorrt")
    portable = False
    kind = "torch-tensorrt"
    suffix = ".ep"
    quantizes: frozenset[Form] = frozenset()
    own_operators = False

    def compile(self, part: ModelPart, target: Path) -> None:
        with torch.no_grad():
            program = torch.export.export(part.module, part.examples, dynamic_shapes=part.dynamic)
            compiled = _LIBRARY.dynamo.compile(program, arg_inputs=_inputs(part), immutable_weights=True)
        # The shapes are told once more: taken from the inputs, dimensions that are one would become several.
        _LIBRARY.save(compiled, str(target), arg_inputs=list(part.examples), dynamic_shapes=part.dynamic)

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        del device  # the program has its own
        return torch.export.load(str(path)).module()


def _inputs(part: ModelPart) -> list[Any]:
    shapes = profile_shapes(part)
    found = []
    for name, example in zip(part.inputs, part.examples, strict=True):
        if name in shapes:
            low, usual, high = shapes[name]
            found.append(_LIBRARY.Input(min_shape=low, opt_shape=usual, max_shape=high, dtype=example.dtype, name=name))
        else:
            found.append(_LIBRARY.Input(shape=tuple(example.shape), dtype=example.dtype, name=name))
    return found


FORM = TorchTensorRt()
