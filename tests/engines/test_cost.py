"""Predicted seconds follow what films really took, by shape, and survive a round trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines.cost import MAX_SHAPES, CostModel
from tests.engines.making import request


def truth(**changes: Any) -> tuple[Any, dict[str, float]]:
    """A request and its seconds on an imagined host: 0.1 to encode, 2 a megapixel, step and row, 5 to decode."""
    wanted = request(**changes)
    volume = wanted.spec.width * wanted.spec.height * wanted.spec.num_frames / 1e6
    rows = 2 if wanted.guided else 1
    return wanted, {
        "encode": 0.1,
        "denoise": 2 * volume * wanted.num_inference_steps * rows,
        "decode": 5 * volume,
    }


def test_the_prior_is_sane() -> None:
    """Untaught, a small film is seconds and a large one is longer; steps, guidance and size all cost."""
    prior = CostModel()
    plain = prior.predict(request())
    assert 0.05 < plain < 60
    for dearer in ({"num_inference_steps": 6}, {"width": 64}, {"num_frames": 17}):
        assert prior.predict(request(**dearer)) > plain
    assert prior.predict(request(guidance_scale=1.0)) < plain


def test_one_film_teaches_the_rest() -> None:
    """After one observation other step counts, sizes and unguided films are predicted exactly, costs being linear."""
    model = CostModel()
    model.observe(*truth())
    for changes in ({}, {"num_inference_steps": 40}, {"width": 96, "num_frames": 33}, {"guidance_scale": 1.0}):
        wanted, seconds = truth(**changes)
        assert model.predict(wanted) == pytest.approx(sum(seconds.values()))


def test_a_batch_is_shared_by_its_films() -> None:
    """The seconds of a batch of four are four films' seconds."""
    model = CostModel()
    wanted, seconds = truth()
    model.observe(wanted, {stage: 4 * value for stage, value in seconds.items()}, batch_size=4)
    assert model.predict(wanted) == pytest.approx(sum(seconds.values()))


def test_a_shape_keeps_its_own_rate() -> None:
    """A large shape that is dearer than in proportion is predicted by its own films, and small ones by theirs."""
    model = CostModel()
    small, small_seconds = truth()
    large, large_seconds = truth(width=96, height=96, num_frames=33)
    large_seconds = large_seconds | {"denoise": 3 * large_seconds["denoise"]}
    for _ in range(20):
        model.observe(small, small_seconds)
        model.observe(large, large_seconds)
    assert model.predict(small) == pytest.approx(sum(small_seconds.values()), rel=0.01)
    assert model.predict(large) == pytest.approx(sum(large_seconds.values()), rel=0.01)


def test_it_follows_a_host_that_slows_down() -> None:
    """When everything takes twice as long, ten films later predictions do too."""
    model = CostModel()
    wanted, seconds = truth()
    model.observe(wanted, seconds)
    for _ in range(10):
        model.observe(wanted, {stage: 2 * value for stage, value in seconds.items()})
    assert model.predict(wanted) == pytest.approx(2 * sum(seconds.values()), rel=0.05)


@pytest.mark.parametrize(
    "seconds", [{}, {"denoise": 0.0}, {"denoise": -1.0}, {"denoise": float("nan")}, {"decode": float("inf")}]
)
def test_nonsense_teaches_nothing(seconds: dict[str, float]) -> None:
    """Missing, zero, negative or infinite seconds leave predictions as they were."""
    model, wanted = CostModel(), request()
    before = model.predict(wanted)
    model.observe(wanted, seconds)
    assert model.predict(wanted) == before


def test_the_number_of_shapes_is_bounded() -> None:
    """The shape not seen for longest makes room; a long-lived worker's model does not grow."""
    model = CostModel()
    for frames in range(1, MAX_SHAPES + 50):
        model.observe(*truth(num_frames=frames))
        model.observe(*truth(num_frames=9999))
    assert len(model.shapes) == MAX_SHAPES
    assert "32x32x9999" in model.shapes
    assert "32x32x1" not in model.shapes


def test_json_round_trip() -> None:
    """What is learnt survives JSON; an empty object is the prior, and what is no model is a ValueError."""
    model = CostModel()
    model.observe(*truth())
    assert CostModel.from_json(json.loads(json.dumps(model.to_json()))) == model
    assert CostModel.from_json({}) == CostModel()
    for wrong in ({"speed": 1}, {"fixed": -1.0}, {"step_rate": float("nan")}, {"shapes": {"a": "b"}}):
        with pytest.raises(ValueError, match=f"not a saved cost model: {next(iter(wrong))}"):
            CostModel.from_json(wrong)
