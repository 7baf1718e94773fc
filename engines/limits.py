"""The one place that says whether a request is legal for a model: every bound, and the bound on their product."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

from engines.errors import InvalidRequest
from engines.types import GenerationRequest, SamplerName, VideoSpec

if TYPE_CHECKING:  # a card checks its own defaults against its limits, so it imports this module
    from engines.card import CardLimits, ModelCard

MAX_SEED = 2**63 - 1


def check_request(request: GenerationRequest, card: ModelCard) -> None:
    """Raise `InvalidRequest`, naming the field, the value and the bound, for the first bound that `request` breaks."""
    limits = card.limits
    check_prompt("prompt", request.prompt, limits, required=True)
    check_prompt("negative_prompt", request.negative_prompt, limits, required=False)
    check_spec(request.spec, limits)
    _whole("num_inference_steps", request.num_inference_steps, 1, limits.max_steps)
    _number("guidance_scale", request.guidance_scale, 0.0, limits.max_guidance_scale)
    _number("flow_shift", request.flow_shift, 0.0, limits.max_flow_shift, above=True)
    if request.sampler not in get_args(SamplerName):
        known = ", ".join(get_args(SamplerName))
        raise InvalidRequest("sampler", f"sampler is {request.sampler!r}; choose one of {known}")
    _whole("seed", request.seed, 0, MAX_SEED)
    check_work(request.spec, request.num_inference_steps, limits)


def check_spec(spec: VideoSpec, limits: CardLimits) -> None:
    """Raise `InvalidRequest` unless a model can make a film of this geometry."""
    _whole("width", spec.width, limits.min_width, limits.max_width)
    _whole("height", spec.height, limits.min_height, limits.max_height)
    _whole("num_frames", spec.num_frames, limits.min_frames, limits.max_frames)
    _whole("fps", spec.fps, limits.min_fps, limits.max_fps)
    for field, value in (("width", spec.width), ("height", spec.height)):
        if value % limits.spatial_multiple:
            near = nearest_legal(value, limits.spatial_multiple, 0, getattr(limits, f"max_{field}"))
            raise InvalidRequest(
                field, f"{field} is {value}; it must be a multiple of {limits.spatial_multiple}, for example {near}"
            )
    if (spec.num_frames - 1) % limits.temporal_multiple:
        near = nearest_legal(spec.num_frames, limits.temporal_multiple, 1, limits.max_frames)
        raise InvalidRequest(
            "num_frames",
            f"num_frames is {spec.num_frames}; it must be a multiple of {limits.temporal_multiple} plus 1, "
            f"for example {near}",
        )


def check_prompt(field: str, text: str, limits: CardLimits, *, required: bool) -> None:
    """Raise `InvalidRequest` for a prompt that is no text, too long, or empty where one is required."""
    if not isinstance(text, str):
        raise InvalidRequest(field, f"{field} must be text, not {type(text).__name__}")
    if required and not text.strip():
        raise InvalidRequest(field, f"{field} is empty; say what the film shall show")
    if len(text) > limits.max_prompt_chars:
        raise InvalidRequest(field, f"{field} has {len(text)} characters; at most {limits.max_prompt_chars} are read")
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidRequest(field, f"{field} holds a character that is no text (a NUL or half of a surrogate pair)")


def check_work(spec: VideoSpec, num_inference_steps: int, limits: CardLimits) -> None:
    """Raise `InvalidRequest` where each figure is legal but their product is more than one request may ask for."""
    work = spec.width * spec.height * spec.num_frames * num_inference_steps
    if work > limits.max_work:
        raise InvalidRequest(
            "num_inference_steps",
            f"width x height x num_frames x num_inference_steps is {work}; at most {limits.max_work} is allowed, "
            f"so ask for a smaller or shorter film or fewer steps",
        )


def nearest_legal(value: int, multiple: int, offset: int, highest: int) -> int:
    """The nearest number to `value` of the form k * multiple + offset, k >= 0, positive and at most `highest`."""
    lowest = offset if offset > 0 else multiple
    near = round((value - offset) / multiple) * multiple + offset
    top = (highest - offset) // multiple * multiple + offset
    return max(lowest, min(near, top))


def _whole(field: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(field, f"{field} must be a whole number, not {value!r:.60}")
    if not low <= value <= high:
        raise InvalidRequest(field, f"{field} is {value}; it must be from {low} to {high}")


def _number(field: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(field, f"{field} must be a finite number, not {value!r:.60}")
    if not low <= value <= high or (above and value == low):
        bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise InvalidRequest(field, f"{field} is {value:g}; it must be {bounds}")
