"""GSB counts what it says, and its interval covers the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from post_train.evaluation.gsb import gsb_of, outcomes, tie_threshold


def _column(good: int, same: int, bad: int) -> np.ndarray:
    return np.array([[1]] * good + [[0]] * same + [[-1]] * bad, dtype=np.int8)


def test_the_formula() -> None:
    """(G - B) / (G + S + B), with the counts beside it."""
    found = gsb_of(_column(50, 30, 20))
    assert found.gsb == pytest.approx(0.3)
    assert (found.good, found.same, found.bad, found.prompts) == (50, 30, 20, 100)


def test_the_interval_is_near_the_closed_form() -> None:
    """1.96 sqrt((p_G + p_B - GSB^2) / n): at +31 % with 30 % ties and n = 400 that is 7.6 points."""
    found = gsb_of(_column(202, 120, 78))
    half = 1.96 * math.sqrt((280 / 400 - found.gsb**2) / 400)
    assert found.high - found.gsb == pytest.approx(half, rel=0.06)
    assert found.gsb - found.low == pytest.approx(half, rel=0.06)
    assert half == pytest.approx(0.076, abs=0.001)


@pytest.mark.parametrize("odds", [(0.4, 0.3, 0.3), (0.7, 0.2, 0.1), (0.05, 0.93, 0.02)])
def test_intervals_cover_the_truth(odds: tuple[float, float, float]) -> None:
    """Over 200 simulated comparisons of 150 prompts the interval holds the true GSB in 90 to 99.5 % of them."""
    rng = np.random.default_rng(5)
    truth = odds[0] - odds[2]
    held = 0
    for _ in range(200):
        found = gsb_of(rng.choice(np.array([1, 0, -1], np.int8), (150, 1), p=odds))
        held += found.low <= truth <= found.high
    assert 0.90 <= held / 200 <= 0.995


@pytest.mark.parametrize(("outcome", "ends"), [(1, (0.0, 1.0)), (0, (-0.5, 0.5)), (-1, (-1.0, 0.0))])
def test_unanimity_is_not_certainty(outcome: int, ends: tuple[float, float]) -> None:
    """Where every prompt went one way the interval has a width, narrower the more prompts there are."""
    few, many = (gsb_of(np.full((n, 1), outcome, np.int8)) for n in (5, 300))
    assert few.gsb == many.gsb == outcome
    assert few.high - few.low > many.high - many.low > 0.005
    # 0.025 ** (1 / 5) is 0.478: at worst a bit more than half of five prompts may have gone the other way.
    assert (few.low, few.high) == pytest.approx(ends, abs=0.05)


def test_a_single_prompt_tells_little() -> None:
    """One prompt with two seeds that disagree could mean anything."""
    found = gsb_of(np.array([[1, -1]], np.int8))
    assert (found.gsb, found.low, found.high) == (0, -1, 1)
    with pytest.raises(ValueError, match="at least one pair"):
        gsb_of(np.zeros((0, 1), np.int8))


def test_seeds_of_a_prompt_stay_together() -> None:
    """Ten seeds of one prompt are no ten prompts: the interval is that of the prompts."""
    rng = np.random.default_rng(8)
    per_prompt = rng.choice(np.array([1, 0, -1], np.int8), (60, 1))
    alone, repeated = gsb_of(per_prompt), gsb_of(per_prompt.repeat(10, axis=1))
    assert (alone.low, alone.high) == pytest.approx((repeated.low, repeated.high))


def test_a_tie_is_what_the_judge_cannot_tell_apart() -> None:
    """The threshold joins both films' noise; a difference of exactly that much is still a tie."""
    noise = np.full((4, 1), 3.0), np.full((4, 1), 4.0)
    assert tie_threshold(*noise) == pytest.approx(5.0)
    assert outcomes(np.array([[5.0], [5.1], [-5.0], [-5.1], [0.0]]), 5.0).ravel().tolist() == [0, 1, 0, -1, 0]


def test_without_noise_only_equality_is_a_tie() -> None:
    """A judge without noise makes no ties but those of the same score."""
    assert outcomes(np.array([[1e-9], [0.0]]), 0.0).ravel().tolist() == [1, 0]
