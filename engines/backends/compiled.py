"""A family whose transformer (and, where there is one, decoder) a compiler has made: how packages are run.

Each compiler is a `CompiledForm`: it makes a file of a `ModelPart`, and a function of tensors of a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from engines.backends import BackendEntry, imported
from engines.errors import UnknownName
from engines.parts import CompiledPart, ModelPart
from engines.quantization.forms import Form


class CompiledForm(Protocol):
    """A compiler: what it makes of a part, and how that is run."""

    libraries: tuple[str, ...]
    """Distributions that what is made depends on; their versions stand in the manifest and must be the same."""
    portable: bool
    """Whether what is made is compiled where it is loaded, so that it is not of one processor."""
    kind: str
    """What it makes: two compilers of one kind make the same file."""
    suffix: str
    quantizes: frozenset[Form]
    """The forms of fewer bits that it can compute a part's linear layers in."""
    own_operators: bool
    """Whether it keeps our operators as they are, where they are quicker than what it would make of their formulas."""

    def compile(self, part: ModelPart, target: Path) -> None:
        """Writes the one file that `load` reads."""
        ...

    def load(self, path: Path, *, device: torch.device) -> CompiledPart:
        """The part, ready to be called."""
        ...


FORMS: dict[str, BackendEntry] = {
    "aotinductor": BackendEntry(module="engines.backends.aotinductor", extra=None),
    "onnxruntime": BackendEntry(module="engines.backends.onnxruntime", extra="onnxruntime"),
    "openvino": BackendEntry(module="engines.backends.openvino", extra="openvino"),
    "torch-tensorrt": BackendEntry(module="engines.backends.torch_tensorrt", extra="tensorrt"),
    "tensorrt": BackendEntry(module="engines.backends.tensorrt", extra="tensorrt"),
    "tensorrt-rtx": BackendEntry(module="engines.backends.tensorrt_rtx", extra="tensorrt-rtx"),
}


def find_form(name: str) -> CompiledForm:
    """The compiler of that name; `UnknownName` for another, `MissingExtra` when what it imports is not installed."""
    if name not in FORMS:
        raise UnknownName("compiling backend", name, FORMS)
    return imported(name, FORMS[name]).FORM
