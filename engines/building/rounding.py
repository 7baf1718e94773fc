"""The step of a quantized build: calibrated on films by the real sampler, smoothed, its layers chosen by measurement.

See `engines.quantization`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from engines.backends.fused import FusedBackend
from engines.building.accuracy import probe_films
from engines.card import ModelCard
from engines.engine import Engine
from engines.family import Family
from engines.parts import ModelPart
from engines.quantization.calibration import Recorder, Seen
from engines.quantization.forms import Form, QuantizedLayers, bears
from engines.quantization.sensitivity import bearable, largest_inputs, layer_errors, smooth
from engines.quantization.spec import Quantization

# Of the steps of the calibrating films, every so many are kept to measure layers on.
_KEEP_EVERY = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A part with the layers that are to be computed in fewer bits, and the report: every layer's error by itself."""

    part: ModelPart
    report: dict[str, Any]


class Rounding:
    """The parts of a model as a recipe wants them; films are made, and layers measured, when a part is asked for."""

    def __init__(
        self, parts: tuple[ModelPart, ...], card: ModelCard, family: Family, wanted: Quantization | None
    ) -> None:
        self._parts, self._card, self._family, self._wanted = parts, card, family, wanted
        self._done: dict[str, Rounded] = {}

    def of(self, part: ModelPart) -> Rounded:
        """A part that does no linear layer over many rows, or of a recipe that wants none rounded, is as it was."""
        if self._wanted is None:
            return Rounded(part=part, report={})
        if part.name not in self._done:
            self._done[part.name] = _rounded(part, self._seen[part.name], self._wanted)
        return self._done[part.name]

    @cached_property
    def _seen(self) -> dict[str, Seen]:
        assert self._wanted is not None
        recorders = {part.name: Recorder(part.module, keep_every=_KEEP_EVERY) for part in self._parts}
        self._family.use_compiled(dict(recorders))
        engine = Engine(card=self._card, family=self._family, backend=FusedBackend(self._family))
        with ExitStack() as stack:
            for recorder in recorders.values():
                stack.enter_context(recorder.watching())
            probe_films(engine, self._wanted.calibration)
        return {name: recorder.seen for name, recorder in recorders.items()}


def _rounded(part: ModelPart, seen: Seen, wanted: Quantization) -> Rounded:
    layers = [name for name in seen.worthwhile if _bears(part, name, wanted.form)]
    if not layers:
        return Rounded(part=part, report={})
    if wanted.smoothing > 0:
        smooth(part.module, seen, layers, wanted.smoothing)
    largest = largest_inputs(part.module, seen, layers)
    errors = layer_errors(part.module, seen.inputs, largest, wanted.form)
    chosen = bearable(errors, wanted.step_error)
    rounded = QuantizedLayers(form=wanted.form, largest={name: largest[name] for name in sorted(chosen)})
    report = {
        "layers": [[name, errors[name]] for name in sorted(errors, key=errors.__getitem__, reverse=True)],
        "kept": sorted(set(seen.worthwhile) - chosen),
        "rounded": len(chosen),
    }
    return Rounded(part=replace(part, quantized=rounded if chosen else None), report=report)


def _bears(part: ModelPart, name: str, form: Form) -> bool:
    layer = part.module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return bears(layer.weight, form)
