"""What a model is for: the defaults it was trained around and the bounds a request must keep, read from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from engines.derived_card import derive_card
from engines.errors import InvalidModel, InvalidRequest
from engines.limits import check_request
from engines.model_folder import read_json
from engines.types import GenerationRequest, SamplerName, VideoSpec

CARD_FILE = "rushes.json"
CARD_VERSION = 1

_STRICT = ConfigDict(extra="forbid", strict=True)
_Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardDefaults:
    """What a request that says nothing gets; sizes in pixels, fps in frames a second."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    width: _Positive
    height: _Positive
    num_frames: _Positive
    fps: _Positive
    num_inference_steps: _Positive
    guidance_scale: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
    flow_shift: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    sampler: SamplerName
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardLimits:
    """The bounds of a request, all inclusive.

    Width and height are multiples of `spatial_multiple`; num_frames = k * `temporal_multiple` + 1;
    `max_work` bounds width * height * num_frames * num_inference_steps; `max_prompt_chars` bounds each of the prompts.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    spatial_multiple: _Positive
    temporal_multiple: _Positive
    min_width: _Positive
    max_width: _Positive
    min_height: _Positive
    max_height: _Positive
    min_frames: _Positive
    max_frames: _Positive
    min_fps: _Positive
    max_fps: _Positive
    max_steps: _Positive
    max_guidance_scale: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
    max_flow_shift: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    max_prompt_chars: _Positive
    max_work: _Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model by name, with its defaults and its limits; `family` says which code drives it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.@/-]+$")]
    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    description: Annotated[str, Field(max_length=2000)] = ""
    defaults: CardDefaults
    limits: CardLimits


_CARD = TypeAdapter(ModelCard)


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder: its `rushes.json`, or what its diffusers configs imply where there is none.

    A folder that tells no consistent card raises `InvalidModel` with one sentence for each thing wrong.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return parse_card(derive_card(folder), origin=f"the configs of {folder.name}")
    content = read_json(path)
    version = content.pop("version", None)
    if version != CARD_VERSION:
        raise InvalidModel(f"{CARD_FILE} has version {version!r}; this program reads version {CARD_VERSION}")
    return parse_card(content, origin=CARD_FILE)


def parse_card(content: dict[str, Any], *, origin: str) -> ModelCard:
    """Validate the content of a card; `origin` names it in errors."""
    try:
        # By way of JSON, since only there does strict mode take an object for a dataclass.
        card = _CARD.validate_json(json.dumps(content))
    except ValidationError as error:
        raise InvalidModel(f"{origin} is not a valid model card: {_sentences(error)}") from None
    _check_consistent(card, origin)
    return card


def _sentences(error: ValidationError) -> str:
    """Pydantic's findings as one line: where, what is wrong, and what was seen."""
    found: list[str] = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "the top level"
        if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            found.append(f"unknown key {where}")
        elif item["type"] in {"missing", "missing_keyword_only_argument", "missing_argument"}:
            found.append(f"{where} is missing")
        else:
            found.append(f"{where}: {item['msg']} (found {item['input']!r:.60})")
    return "; ".join(found)


def _check_consistent(card: ModelCard, origin: str) -> None:
    """The defaults are themselves a legal request, so that a request that says nothing can't be refused."""
    limits, defaults = card.limits, card.defaults
    for low, high in (
        ("min_width", "max_width"),
        ("min_height", "max_height"),
        ("min_frames", "max_frames"),
        ("min_fps", "max_fps"),
    ):
        if getattr(limits, low) > getattr(limits, high):
            raise InvalidModel(f"{origin}: limits.{low} {getattr(limits, low)} is above limits.{high}")
    request = GenerationRequest(
        request_id="defaults",
        prompt="any",
        negative_prompt=defaults.negative_prompt,
        spec=VideoSpec(width=defaults.width, height=defaults.height, num_frames=defaults.num_frames, fps=defaults.fps),
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        flow_shift=defaults.flow_shift,
        sampler=defaults.sampler,
        seed=0,
    )
    try:
        check_request(request, card)
    except InvalidRequest as error:
        raise InvalidModel(f"{origin}: the defaults break the card's own limits: {error}") from None
