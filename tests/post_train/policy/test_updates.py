"""What an update is made of: chosen steps, weights, advantages, trust regions and the forward-process loss."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from post_train.distributed import ALONE
from post_train.evaluation.diversity import diversity, layouts, novelties
from post_train.policy.advantages import AdvantageRule, Deviation, Mixing, advantages
from post_train.policy.equal_score import Rise, cost_ratio
from post_train.policy.forward_process import NftRule, OldPolicy, nft_losses, optimality, renewed
from post_train.policy.plan import MismatchedGroupError, RolloutPlan, Rollouts, check_groups, planned
from post_train.policy.selectors import EveryStep, OneStep, RandomShare, SlidingWindow, Steps
from post_train.policy.trust import Clip, Divergence, DualKl, Guard, Moves, TrustRegion
from post_train.policy.weights import Slopes, StepNorms, averaging_one, equalised, rectified

_DRAWING = tuple(range(20))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_iso_temporal_groups_share_one_early_step() -> None:
    """All films of a group branch at one step of the first half; without the grouping they do not."""
    seen = set()
    generator = _generator()
    for _ in range(200):
        chosen = OneStep().choose(_DRAWING, films=8, update=0, generator=generator)
        assert len(set(chosen)) == 1
        assert chosen[0].drawn == chosen[0].learnt
        seen |= set(chosen[0].drawn)
    assert seen == set(range(10))
    apart = OneStep(shared=False).choose(_DRAWING, films=8, update=0, generator=generator)
    assert len({s.drawn for s in apart}) > 1


def test_the_rivals_choose_as_they_say() -> None:
    """All of the steps, a random share that is drawn whole, a window that slides and begins anew."""
    (every,) = EveryStep().choose(_DRAWING, films=1, update=0, generator=_generator())
    assert every.learnt == every.drawn == _DRAWING
    (share,) = RandomShare().choose(_DRAWING, films=1, update=0, generator=_generator())
    assert share.drawn == _DRAWING
    assert len(share.learnt) == 12
    assert list(share.learnt) == sorted(share.learnt)
    window = SlidingWindow(size=4, every=2)
    at = [window.choose(_DRAWING, films=1, update=u, generator=_generator())[0].drawn for u in (0, 1, 2, 32, 34)]
    assert at == [(0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 3, 4), (16, 17, 18, 19), (0, 1, 2, 3)]


def test_what_was_not_drawn_cannot_be_learnt_from() -> None:
    """A step without a draw has no density."""
    with pytest.raises(ValueError, match="must have been drawn"):
        Steps(drawn=(1, 2), learnt=(3,))


def test_weights_average_to_one_and_undo_the_steps_own_pull() -> None:
    """Rectified weights times |pull| / deviation are the same at all steps; equalised ones follow measured norms."""
    pulls = [0.1, 0.2, 0.4, 0.4]
    found = rectified(pulls)
    assert sum(found) / 4 == pytest.approx(1)
    assert len({round(w * p, 9) for w, p in zip(found, pulls, strict=True)}) == 1
    norms = StepNorms(decay=0.5)
    for step, norm in ((0, 4.0), (1, 1.0), (0, 2.0)):
        norms.take(step, norm)
    assert norms.seen == {0: 3.0, 1: 1.0}
    weights = equalised([0, 1], norms.seen)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert sum(weights) == pytest.approx(2)
    with pytest.raises(ValueError, match="above 0"):
        averaging_one([1.0, 0.0])


def test_slopes_are_means_of_the_steps_that_were_seen() -> None:
    """However many items of a step came together."""
    slopes = Slopes()
    slopes.take(2, [1.0, 2.0])
    slopes.take(0, [5.0])
    slopes.take(2, [6.0])
    assert slopes.means(ALONE, 4) == {0: 5.0, 2: 3.0}
    assert Slopes().means(ALONE, 4) == {}


def _rewards() -> np.ndarray:
    return np.array([[[1.0, 10], [3, 10], [2, 10]], [[5, 7], [5, 7], [5, 7]]], dtype=np.float32)


def test_advantages_are_deviations_within_the_group() -> None:
    """Group mean and deviation; a group that says nothing is dropped and counted."""
    found = advantages(_rewards(), np.array([1, 1], dtype=np.float32), AdvantageRule())
    assert found.values[0] == pytest.approx([-1.2247, 1.2247, 0], abs=1e-4)
    assert found.dropped == 1
    assert not found.kept[1].any()
    assert found.kept[0].all()
    assert not found.values[1].any()


def test_the_batch_may_give_the_deviation() -> None:
    """Flash-GRPO divides by the deviation of all rewards, and a unit then matters unless each reward has its own."""
    rewards = np.array([[[0.0, 0], [1, 100]], [[0, 300], [3, 0]]], dtype=np.float32)
    one = np.array([1, 1], dtype=np.float32)
    rule = AdvantageRule(mixing=Mixing.SUM, deviation=Deviation.BATCH)
    total = rewards.sum(axis=2).astype(np.float64)
    expected = (total - total.mean(axis=1, keepdims=True)) / total.std()
    assert advantages(rewards, one, rule).values == pytest.approx(expected)
    each = replace(rule, mixing=Mixing.EACH)
    scaled = rewards * np.array([1, 1e-3], dtype=np.float32)
    assert advantages(rewards, one, each).values == pytest.approx(advantages(scaled, one, each).values, abs=1e-5)


@pytest.mark.parametrize("deviation", Deviation)
@pytest.mark.parametrize("mixing", Mixing)
def test_what_differs_by_rounding_is_alike(mixing: Mixing, deviation: Deviation) -> None:
    """A group whose rewards are one number in fp32 but for its last bit teaches nothing; beside it another does."""
    alike, apart = np.full(4, 47.22, np.float32), np.array([47.0, 48.0, 49.0, 50.0], np.float32)
    alike[0] = np.nextafter(alike[0], np.float32(99))
    rule = AdvantageRule(mixing=mixing, deviation=deviation)
    found = advantages(np.stack([alike, apart])[:, :, None], np.array([1], dtype=np.float32), rule)
    assert found.dropped == 1
    assert found.kept.tolist() == [[False] * 4, [True] * 4]
    assert not found.values[0].any()
    assert found.values[1, 3] > 1


def test_only_the_extremes_of_a_group_may_count() -> None:
    """The two best and the two worst of six; and clipping bounds an outlier."""
    rewards = np.arange(6, dtype=np.float32)[None, :, None]
    found = advantages(rewards, np.array([1], dtype=np.float32), AdvantageRule(extremes=2))
    assert found.kept.tolist() == [[True, True, False, False, True, True]]
    spike = np.zeros((1, 64, 1), dtype=np.float32)
    spike[0, 0] = 1
    clipped = advantages(spike, np.array([1], dtype=np.float32), AdvantageRule(clip=5))
    assert clipped.values.max() == 5


def test_what_cannot_be_compared_is_refused() -> None:
    """A group of one, and a reward that is no number."""
    one = np.array([1], dtype=np.float32)
    with pytest.raises(ValueError, match="at least 2"):
        advantages(np.zeros((3, 1, 1), dtype=np.float32), one, AdvantageRule())
    with pytest.raises(ValueError, match="not finite"):
        advantages(np.full((1, 2, 1), np.nan, dtype=np.float32), one, AdvantageRule())


def _moves(log_ratio: list[float], values: list[float], **changes: object) -> Moves:
    given = torch.tensor(log_ratio, requires_grad=True)
    zero = torch.zeros(len(values))
    whole = Moves(
        log_ratio=given,
        advantages=torch.tensor(values, dtype=torch.float32),
        from_drawing=zero,
        from_reference=zero,
        from_anchor=zero,
        deviation=0.1,
        dt=-0.05,
    )
    return replace(whole, **changes)  # pyright: ignore[reportArgumentType]  the fields' own types


def test_a_clipped_ratio_stops_pulling() -> None:
    """Beyond the range, and only on the side that the advantage asks for, the gradient is zero."""
    moves = _moves([0.0, 0.01, -0.01, 0.01, -0.01], [1, 1, 1, -1, -1])
    verdict = Clip(clip_range=1e-3)(moves)
    assert verdict.held.tolist() == [False, True, False, False, True]
    (gradient,) = torch.autograd.grad(verdict.losses.sum(), moves.log_ratio)
    assert (gradient == 0).tolist() == [False, True, False, False, True]
    assert float(gradient[0]) == pytest.approx(-1)


def test_kl_terms_add_up() -> None:
    """The reference's with its coefficient; dual KL the anchor's and the stepwise one."""
    apart = torch.tensor([0.5, 2.0])
    base = _moves([0.0, 0.0], [1, -1])
    added = Clip(kl=0.1)(replace(base, from_reference=apart)).losses - Clip()(base).losses
    assert torch.allclose(added, 0.1 * apart)
    region = DualKl(coefficient=2.0, to_anchor=1.0, stepwise=0.1)
    found = region(replace(base, from_anchor=apart, from_drawing=3 * apart)).losses - region(base).losses
    assert torch.allclose(found, 2 * (apart + 0.3 * apart))
    with pytest.raises(ValueError, match="anchor"):
        region(replace(base, from_anchor=None))


def test_the_guard_centres_the_ratio() -> None:
    """A Gaussian's log-ratio has mean minus its divergence: with that added back, drawn noise is clipped evenly."""
    torch.manual_seed(0)
    draws, values, shift, deviation = 4000, 64, 0.02, 0.1
    noise = torch.randn(draws, values)
    log_ratio = (-0.5 * (noise - shift / deviation) ** 2 + 0.5 * noise**2).mean(1)
    divergence = torch.full((draws,), 0.5 * (shift / deviation) ** 2)
    moves = _moves(log_ratio.tolist(), [1.0] * draws, from_drawing=divergence, deviation=deviation)
    plain = moves.log_ratio.detach().mean()
    assert abs(float(plain + divergence.mean())) < 1e-3 < -float(plain)
    held = Guard(clip_range=2e-6)(moves).held.float().mean()
    assert float(held) == pytest.approx(0.5, abs=0.03)
    assert float(Clip(clip_range=2e-6)(moves).held.float().mean()) < 0.3


def test_divergence_holds_what_leaves_and_lets_return() -> None:
    """Far away, a step that leaves has no gradient, one that comes back has."""
    moves = _moves([0.01, -0.01, -0.01, 0.01], [1, 1, -1, -1], from_drawing=torch.full((4,), 1e-3))
    verdict = Divergence(bound=1e-5)(moves)
    assert verdict.held.tolist() == [True, False, True, False]
    (gradient,) = torch.autograd.grad(verdict.losses.sum(), moves.log_ratio)
    assert (gradient != 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("region", [Clip(), Clip(kl=1.0), DualKl(), Guard(), Divergence()])
def test_at_the_drawing_policy_all_regions_are_the_policy_gradient(region: TrustRegion) -> None:
    """With a ratio of one the gradient by the log-ratio is minus the advantage, up to the guard's own scale."""
    moves = _moves([0.0, 0.0], [1.5, -0.5])
    (gradient,) = torch.autograd.grad(region(moves).losses.sum(), moves.log_ratio)
    scale = 0.1 / 0.05 if isinstance(region, Guard) else 1.0
    assert gradient.tolist() == pytest.approx([-1.5 * scale, 0.5 * scale])


def test_nft_pulls_good_films_near_and_bad_ones_away() -> None:
    """At the old policy the gradient of a wholly good film is that of flow matching, of a bad one its opposite."""
    torch.manual_seed(0)
    clean, noise, old = torch.randn(3, 2, 4, 2, 4, 4).unbind(0)
    sigmas = torch.tensor([0.5, 0.5])
    noisy = 0.5 * clean + 0.5 * noise
    velocity = old.clone().requires_grad_()
    rule = NftRule(beta=1.0, reference=0.0, clip=1.0)
    losses = nft_losses(
        rule,
        clean=clean,
        noisy=noisy,
        sigmas=sigmas,
        velocity=velocity,
        old=old,
        reference=old,
        good=optimality(torch.tensor([1.0, -1.0]), 1.0),
    )
    (gradient,) = torch.autograd.grad(losses.sum(), velocity)
    towards = old - (noise - clean)
    cosines = torch.nn.functional.cosine_similarity(gradient.flatten(1), towards.flatten(1))
    assert cosines.tolist() == pytest.approx([1, -1], abs=1e-4)
    neutral = optimality(torch.tensor([0.0, 0.0]), 1.0)
    losses = nft_losses(
        rule, clean=clean, noisy=noisy, sigmas=sigmas, velocity=velocity, old=old, reference=old, good=neutral
    )
    (none,) = torch.autograd.grad(losses.sum(), velocity)
    assert float(none.abs().max()) < 1e-7


def test_the_old_policy_follows_on_its_schedule() -> None:
    """Its decay grows with the update up to a bound."""
    rule = OldPolicy(slope=0.001, most=0.5)
    assert [rule.decay(u) for u in (0, 100, 1000)] == [0, 0.1, 0.5]
    assert OldPolicy(slope=0.0075, flat=75, most=0.999).decay(74) == 0
    old, new = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    renewed(old, new, 0.25)
    assert old["w"].tolist() == [0.75, 0.75]


def _plan(**changes: object) -> RolloutPlan:
    rollouts = Rollouts(prompts=3, size=4, **changes)  # pyright: ignore[reportArgumentType]
    return planned(rollouts, ["a", "b", "c", "d", "e"], OneStep(), _DRAWING, seed=7, number=2)


def test_a_plan_hangs_on_seed_and_number_alone() -> None:
    """Every rank makes the same one; a round goes through all prompts; a shared noise is shared by a group alone."""
    assert _plan() == _plan()
    texts = [f"prompt {i}" for i in range(5)]
    seen = []
    for number in range(5):
        plan = planned(Rollouts(prompts=1, size=2), texts, OneStep(), _DRAWING, seed=7, number=number)
        seen.append(plan.films[0].prompt)
    assert sorted(seen) == texts
    assert len({f.seed for f in _plan().films}) == 12
    assert len({f.seed for f in _plan(shared_noise=True).films}) == 3


def test_groups_that_do_not_compare_are_refused() -> None:
    """A film of another prompt, and one that draws at another step."""
    plan = _plan()
    films = list(plan.films)
    films[1] = replace(films[1], prompt="another")
    with pytest.raises(MismatchedGroupError, match="other prompts"):
        check_groups(replace(plan, films=tuple(films)), shared_steps=True)
    films = list(plan.films)
    step = (films[0].steps.drawn[0] + 1) % 10
    films[1] = replace(films[1], steps=Steps(drawn=(step,), learnt=(step,)))
    with pytest.raises(MismatchedGroupError, match="iso-temporal"):
        check_groups(replace(plan, films=tuple(films)), shared_steps=True)
    check_groups(replace(plan, films=tuple(films)), shared_steps=False)


def test_the_film_that_lies_apart_is_the_new_one() -> None:
    """Distances are to the films of the same group alone, and their mean is what evaluations call diversity."""
    films = [np.full((3, 16, 16, 3), grey, dtype=np.uint8) for grey in (0, 0, 51, 204, 204, 204)]
    found = novelties(layouts(films), size=3)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.2, 0.0, 0.0, 0.0], atol=1e-12)
    pairs = [diversity(pair) for pair in combinations(films[:3], 2)]
    assert diversity(films[:3]) == pytest.approx(np.mean(pairs)) == np.mean(found[:3])


def _rise(costs: list[float], gain: float, prompts: NDArray[np.float64]) -> Rise:
    """A run that rises by `gain` in all, evenly over its looks; prompts differ by a constant of their own."""
    share = np.linspace(0, gain, len(costs))[:, None]
    return Rise(forwards=np.array(costs), gains=share * prompts)


def test_equal_scores_are_costed_with_their_spread() -> None:
    """Twice the rows a look for the same rise is twice the cost, whatever prompts are drawn.

    Seeds that differ spread it; an arm that only falls has no cost, and is not given one.
    """
    prompts = np.random.default_rng(0).uniform(0.5, 1.5, size=48)
    flash = [_rise([0, 10, 20, 30], 1.0, prompts)]
    slow = [_rise([0, 20, 40, 60], 1.0, prompts)]
    found = cost_ratio(slow, flash)
    assert (found.median, found.low, found.high, found.rose) == pytest.approx((2.0, 2.0, 2.0, 1.0))
    higher = cost_ratio([_rise([0, 30], 2.0, prompts)], flash)  # reaches flash's best half way
    assert higher.median == pytest.approx(0.5)
    seeds = cost_ratio([*slow, _rise([0, 20, 40, 60], 0.5, prompts)], flash)
    assert seeds.low == pytest.approx(2.0)
    assert seeds.high == pytest.approx(4.0)
    falls = cost_ratio([_rise([0, 10, 20], -1.0, prompts)], flash)
    assert falls.rose == 0
    assert np.isnan(falls.median)
