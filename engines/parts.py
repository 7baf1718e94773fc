"""The parts of a model that compilers are given, and what becomes of them: functions of tensors.

Legend: B rows, C latent channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from engines.quantization.forms import QuantizedLayers

CompiledPart = Callable[..., Tensor]
"""A part that a backend has compiled, called as the module was: tensors in, one tensor out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """A part to be compiled. `examples` are inputs of a usual size; `dynamic` names the dimensions that may vary.

    `inputs` names the inputs in order; `dynamic` has for each input a `torch.export.Dim` by dimension, or None.
    `quantized` names the linear layers of the module that are computed in fewer bits.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    examples: tuple[Tensor, ...]
    dynamic: tuple[dict[int, Any] | None, ...]
    quantized: QuantizedLayers | None = None
