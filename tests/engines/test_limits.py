"""Every bound of a request is checked, names its field, the value seen and the bound, and is inclusive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import load_engine
from engines.card import ModelCard, read_card
from engines.errors import EngineError, InvalidRequest
from engines.limits import check_request, nearest_legal
from tests.engines.making import request


@pytest.fixture(scope="module")
def card(tiny_wan: Path) -> ModelCard:
    return read_card(tiny_wan)


ILLEGAL: list[tuple[str, Any, str]] = [
    ("prompt", "", "empty"),
    ("prompt", " \n\t", "empty"),
    ("prompt", "x" * 501, "501 characters; at most 500"),
    ("prompt", None, "must be text, not NoneType"),
    ("prompt", "a\x00b", "no text"),
    ("prompt", "a\ud800b", "no text"),
    ("negative_prompt", "x" * 501, "501 characters; at most 500"),
    ("negative_prompt", b"x", "must be text, not bytes"),
    ("width", 0, "from 16 to 96"),
    ("width", 112, "width is 112; it must be from 16 to 96"),
    ("width", 33, "multiple of 16, for example 32"),
    ("width", 95, "multiple of 16, for example 96"),
    ("width", 32.0, "whole number, not 32.0"),
    ("width", True, "whole number, not True"),
    ("width", "32", "whole number, not '32'"),
    ("height", -16, "from 16 to 96"),
    ("height", 40, "multiple of 16, for example"),
    ("num_frames", 0, "from 1 to 33"),
    ("num_frames", 10, "multiple of 4 plus 1, for example 9"),
    ("num_frames", 34, "from 1 to 33"),
    ("fps", 0, "from 1 to 30"),
    ("fps", 31, "from 1 to 30"),
    ("num_inference_steps", 0, "from 1 to 50"),
    ("num_inference_steps", 51, "from 1 to 50"),
    ("guidance_scale", -0.1, "from 0 to 20"),
    ("guidance_scale", 20.5, "20.5; it must be from 0 to 20"),
    ("guidance_scale", float("nan"), "finite number, not nan"),
    ("guidance_scale", float("inf"), "finite number, not inf"),
    ("flow_shift", 0.0, "above 0 and at most 20"),
    ("flow_shift", 21, "at most 20"),
    ("sampler", "dpm", "'dpm'; choose one of unipc, euler"),
    ("seed", -1, "from 0 to 9223372036854775807"),
    ("seed", 2**63, "from 0 to 9223372036854775807"),
    ("seed", 1.5, "whole number"),
]
LEGAL: list[dict[str, Any]] = [
    {},
    {"width": 16, "height": 96},
    {"width": 96, "height": 16},
    {"num_frames": 1},
    {"num_frames": 33},
    {"fps": 1},
    {"fps": 30},
    {"num_inference_steps": 1},
    {"num_inference_steps": 50},
    {"guidance_scale": 0},
    {"guidance_scale": 20.0},
    {"flow_shift": 20.0},
    {"prompt": "x" * 500},
    {"negative_prompt": ""},
    {"seed": 0},
    {"seed": 2**63 - 1},
]


@pytest.mark.parametrize(("field", "value", "said"), ILLEGAL)
def test_each_bound_names_its_field(card: ModelCard, field: str, value: object, said: str) -> None:
    """What is out of bounds is refused with the field, the value and what is allowed."""
    with pytest.raises(InvalidRequest, match=said) as caught:
        check_request(request(**{field: value}), card)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EngineError)


@pytest.mark.parametrize("changes", LEGAL, ids=str)
def test_the_bounds_themselves_are_legal(card: ModelCard, changes: dict[str, Any]) -> None:
    """Bounds are inclusive."""
    check_request(request(**changes), card)


def test_the_product_is_bounded(card: ModelCard) -> None:
    """Figures that are each legal may together be more than one request may ask for."""
    edge = {"width": 96, "height": 96, "num_frames": 33}
    check_request(request(**edge, num_inference_steps=8), card)
    with pytest.raises(InvalidRequest, match="is 2737152; at most 2433024") as caught:
        check_request(request(**edge, num_inference_steps=9), card)
    assert caught.value.field == "num_inference_steps"


def test_the_engine_checks_too(tiny_wan: Path, card: ModelCard) -> None:
    """An engine refuses what the gateway would have refused."""
    with pytest.raises(InvalidRequest, match="width is 112"):
        load_engine(tiny_wan).generate([request(width=112)])
    wide = replace(card, limits=replace(card.limits, max_width=112))
    check_request(request(width=112), wide)


@pytest.mark.parametrize(
    ("value", "multiple", "offset", "highest", "near"),
    [
        (33, 16, 0, 96, 32),
        (41, 16, 0, 96, 48),
        (1, 16, 0, 96, 16),
        (500, 16, 0, 100, 96),
        (10, 4, 1, 33, 9),
        (3, 4, 1, 4, 1),
    ],
)
def test_the_suggested_value_is_legal(value: int, multiple: int, offset: int, highest: int, near: int) -> None:
    """The example given to the user is the nearest legal one."""
    assert nearest_legal(value, multiple, offset, highest) == near
