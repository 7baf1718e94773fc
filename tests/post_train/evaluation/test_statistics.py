"""Intervals and sample sizes agree with closed forms, and cover as often as they say."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from post_train.evaluation.statistics import bootstrap_means, interval, needed_prompts, share_interval


def test_resampled_means_have_the_spread_of_a_mean() -> None:
    """Their mean is the sample's, their deviation is s / sqrt(n), as the closed form of the bootstrap says."""
    values = np.random.default_rng(3).exponential(2.0, 200)
    means = bootstrap_means(values)
    assert len(means) == 10_000
    assert means.mean() == pytest.approx(values.mean(), rel=0.005)
    assert means.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.03)


def test_every_resample_has_its_odds() -> None:
    """Three prompts have 27 draws in order: the mean of each multiset comes as often as the binomial theorem says."""
    means = bootstrap_means(np.array([0.0, 1.0, 5.0]), resamples=54_000)
    sums, counts = np.unique(np.round(means * 3).astype(int), return_counts=True)
    expected = Counter(sum(draw) for draw in product((0, 1, 5), repeat=3))
    assert sums.tolist() == sorted(expected)
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        assert count / 2000 == pytest.approx(expected[total], rel=0.12)


def test_many_prompts_are_drawn_in_parts() -> None:
    """More picks than are held at once give as many resamples, each of all prompts."""
    means = bootstrap_means(np.ones(3000), resamples=1001)
    assert means.tolist() == [1.0] * 1001


def test_an_interval_is_the_same_every_time() -> None:
    """A fixed seed: two reports of the same films say the same."""
    values = np.random.default_rng(2).normal(size=100)
    assert interval(values) == interval(values)
    assert interval(values).low < interval(values).mean < interval(values).high


def test_an_interval_of_one_or_none() -> None:
    """One prompt has a mean and no interval; none has neither."""
    one = interval(np.array([0.4]))
    assert one.mean == 0.4
    assert math.isnan(one.low)
    assert not one.excludes_zero
    with pytest.raises(ValueError, match="no prompts"):
        interval(np.array([]))


def test_intervals_cover_what_they_promise() -> None:
    """Over 200 simulated experiments the 95 % interval of a skewed mean holds the truth in 90 to 99 % of them."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        found = interval(rng.exponential(1.0, 80))
        held += found.low <= 1.0 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_needed_prompts_is_the_textbook_number() -> None:
    """z = 1.96 + 0.8416: 785 prompts for a tenth of a deviation, a quarter of them for twice that."""
    assert needed_prompts(1.0, 0.1) == 785
    assert needed_prompts(1.0, 0.2) == 197
    assert needed_prompts(0.0, 0.2) == 2
    with pytest.raises(ValueError, match="above 0"):
        needed_prompts(1.0, 0.0)


def test_needed_prompts_find_the_effect() -> None:
    """Simulated experiments of that size find it in about 80 % of cases."""
    rng = np.random.default_rng(11)
    count = needed_prompts(1.0, 0.4)
    hits = 0
    for _ in range(150):
        hits += interval(rng.normal(0.4, 1.0, count)).low > 0
    assert 0.70 <= hits / 150 <= 0.90


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_share_lies_in_its_interval_as_often_as_it_says(share: float) -> None:
    """Over all outcomes of 250 cases, weighted by their odds, Wilson's interval holds the true share in about 95 %."""
    held = 0.0
    for hits in range(251):
        found = share_interval(hits, 250)
        if found.low <= share <= found.high:
            held += math.comb(250, hits) * share**hits * (1 - share) ** (250 - hits)
    assert held == pytest.approx(0.95, abs=0.02)


def test_a_share_of_all_or_nothing_keeps_its_doubt() -> None:
    """All of 250 won does not mean that the next one will be; the bounds stay in [0, 1]."""
    assert share_interval(250, 250).low == pytest.approx(0.985, abs=0.001)
    assert 1 - 1e-9 < share_interval(250, 250).high <= 1 + 1e-9
    assert share_interval(0, 250).high == pytest.approx(0.015, abs=0.001)
    with pytest.raises(ValueError, match="3 in 2"):
        share_interval(3, 2)
