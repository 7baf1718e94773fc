"""How many seconds a request will take on this engine, learnt from those it has made. Torch-free.

The seconds of a lone request are modelled as

    fixed + steps * rows * volume * step_rate + volume * decode_rate

with volume in millions of pixels (width * height * frames) and 2 rows when guided, else 1. Attention makes large films
dearer than in proportion, so a shape that has been seen keeps a step rate of its own; the common rate is for new ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from engines.types import GenerationRequest

# How much one observation moves a rate: enough to follow a warm-up or a change of host load within ten films.
GAIN = 0.3
# Shapes that keep a rate of their own; the one not seen for longest makes room.
MAX_SHAPES = 256

_Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


@dataclass(slots=True, kw_only=True)
class CostModel:
    """Seconds by request. Before the first observation it holds a prior that is right within a factor of a few.

    `fixed` is in seconds; the rates are in seconds for a million pixels (`step_rate`: and step and row).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    fixed: _Rate = 0.2
    step_rate: _Rate = 0.3
    decode_rate: _Rate = 3.0
    observations: Annotated[int, Field(ge=0)] = 0
    shapes: dict[str, _Rate] = field(default_factory=dict)

    def predict(self, request: GenerationRequest) -> float:
        """Seconds that `request` would take alone, from encoding the prompt to decoded frames."""
        rate = self.shapes.get(_shape(request), self.step_rate)
        return self.fixed + _row_steps(request) * rate + _volume(request) * self.decode_rate

    def observe(self, request: GenerationRequest, seconds: Mapping[str, float], *, batch_size: int = 1) -> None:
        """Learn from a result's `seconds` by stage, those of a whole batch of `batch_size` films.

        Beside the engine's stages there may be `write`, the encoding and storing of the films.
        What is missing, not finite or not positive teaches nothing.
        """
        share = {stage: value / batch_size for stage, value in seconds.items() if math.isfinite(value) and value > 0}
        # The first film says more than any prior.
        gain = 1.0 if self.observations == 0 else GAIN
        if "denoise" in share:
            rate = share["denoise"] / _row_steps(request)
            shape = _shape(request)
            own = self.shapes.pop(shape, None)
            self.shapes[shape] = rate if own is None else own + GAIN * (rate - own)
            self.step_rate += gain * (rate - self.step_rate)
            while len(self.shapes) > MAX_SHAPES:
                del self.shapes[next(iter(self.shapes))]
        if "decode" in share:
            self.decode_rate += gain * (share["decode"] / _volume(request) - self.decode_rate)
        if "encode" in share:
            self.fixed += gain * (share["encode"] + share.get("write", 0.0) - self.fixed)
        self.observations += 1

    def to_json(self) -> dict[str, Any]:
        """Everything learnt, as a JSON object for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CostModel:
        """A model as `to_json` wrote it; what is missing is the prior's, what is not a cost model is a `ValueError`."""
        try:
            return TypeAdapter(cls).validate_python(dict(content))
        except ValidationError as error:
            first: Any = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"this is not a saved cost model: {where}: {first['msg']}") from None


def _volume(request: GenerationRequest) -> float:
    return request.spec.width * request.spec.height * request.spec.num_frames / 1e6


def _row_steps(request: GenerationRequest) -> float:
    return request.num_inference_steps * (2 if request.guided else 1) * _volume(request)


def _shape(request: GenerationRequest) -> str:
    spec = request.spec
    return f"{spec.width}x{spec.height}x{spec.num_frames}"
