"""AOTInductor: a part as native code, compiled by torch's inductor ahead of time, for a CPU or a GPU.

The file is a zip of a shared library, which loading runs: only after a package's signature was checked.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package

from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class AotInductor:
    """See `engines.backends.compiled.CompiledForm`."""

    libraries = ("torch",)
    portable = False
    kind = "native"
    suffix = ".pt2"
    quantizes: frozenset[Form] = frozenset()
    own_operators = True

    def compile(self, part: ModelPart, target: Path) -> None:
        with torch.no_grad(), warnings.catch_warnings():
            # Of inductor's own making; nothing that a caller could do about it.
            warnings.simplefilter("ignore")
            program = torch.export.export(part.module, part.examples, dynamic_shapes=part.dynamic)
            aoti_compile_and_package(program, package_path=str(target))

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        # The runner keeps no state between calls but its weights, and a process has one engine.
        index = device.index if device.index is not None else (0 if device.type == "cuda" else -1)
        return aoti_load_package(str(path), run_single_threaded=True, device_index=index)


FORM = AotInductor()
