"""A policy's films are the serving loop's, and their replay is the same function: a ratio of one before an update."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.engine import load_engine
from engines.types import GenerationResult
from post_train.films import FilmOrder, request_of
from post_train.policy.methods import DrawnSteps
from post_train.policy.plan import PlannedFilm
from post_train.policy.rollout import Policy
from post_train.policy.selectors import Steps
from tests.post_train.policy.small_grpo import PROMPTS, small_grpo, small_run


@pytest.fixture
def policy(tiny_wan: Path, tmp_path: Path) -> Policy:
    """The tiny Wan as a guided policy."""
    return small_run(small_grpo(), tiny_wan, tmp_path / "run").policy


def _films(*drawn: tuple[int, ...]) -> list[PlannedFilm]:
    return [
        PlannedFilm(group=0, prompt=PROMPTS[i], seed=10 + i, draw_seed=20 + i, steps=Steps(drawn=d, learnt=d))
        for i, d in enumerate(drawn)
    ]


def test_a_draw_is_replayed_with_the_probability_it_had(policy: Policy) -> None:
    """Guided and in other batches than it was drawn in, to 1e-6: far below any trust region."""
    rolled = policy.roll_out(_films((1,), (1,), (3,)), first=0)
    draws = [film.draws[0] for film in rolled]
    assert [d.index for d in draws] == [1, 1, 3]
    for some in (draws[:2], draws[:1], draws[2:]):
        again = policy.replay(some, [PROMPTS[d.film] for d in some])
        wanted = torch.tensor([d.log_probability for d in some])
        assert torch.allclose(again.log_probability, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="cannot be replayed together"):
        policy.replay(draws, PROMPTS[:3])


def test_gradients_reach_every_trained_weight_through_a_replay(policy: Policy) -> None:
    """A replay's log-probability is differentiable by all that is trained."""
    (film,) = policy.roll_out(_films((2,)), first=0)
    policy.replay(film.draws, PROMPTS[:1]).log_probability.sum().backward()
    transformer = policy.backend._transformer
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in transformer.parameters())


def test_a_film_that_draws_nothing_is_the_served_one(tiny_wan: Path, policy: Policy) -> None:
    """By the model's own sampler, guidance and steps it is the engine's film, to rounding."""
    card = load_engine(tiny_wan).card
    sampling = replace(policy.sampling, steps=4, guidance=card.defaults.guidance_scale)
    (mine,) = Policy(policy.engine, policy.backend, sampling, None).roll_out(_films((0,)), first=0)
    order = FilmOrder(name="x", prompt=PROMPTS[0], seed=10, steps=4)
    events = load_engine(tiny_wan).generate([request_of(card, order)])
    (served,) = [e for e in events if isinstance(e, GenerationResult)]
    assert torch.allclose(mine.latents, torch.from_numpy(served.latents), atol=1e-4)


def test_films_do_not_depend_on_their_mates(policy: Policy) -> None:
    """The same film alone and in a batch where others draw at other steps."""
    films = _films((1,), (3,), (0, 2))
    together = policy.roll_out(films, first=0)
    for row, film in enumerate(films):
        (alone,) = policy.roll_out([film], first=row)
        assert torch.allclose(alone.latents, together[row].latents, atol=1e-5)
        assert [d.index for d in alone.draws] == [d.index for d in together[row].draws]


def test_one_draw_changes_the_film_and_its_noise_decides_how(policy: Policy) -> None:
    """From the same start, two draws at one step give two films, and the same draw gives the same film."""
    (film,) = _films((1,))
    (one,) = policy.roll_out([film], first=0)
    (same,) = policy.roll_out([film], first=0)
    (other,) = policy.roll_out([replace(film, draw_seed=99)], first=0)
    assert torch.equal(one.latents, same.latents)
    assert float((one.latents - other.latents).abs().max()) > 0.01
    assert torch.equal(one.draws[0].before, other.draws[0].before)


def test_forwards_are_counted(tiny_wan: Path, tmp_path: Path) -> None:
    """At twenty steps `flash` costs at most a third of `flow`, in forward passes where those with gradients count 3."""
    counts = {}
    for preset in ("flash", "flow"):
        recipe = replace(small_grpo(preset, steps=2), sampling_steps=20)
        assert isinstance(recipe.policy.method, DrawnSteps)
        run = small_run(recipe, tiny_wan, tmp_path / preset)
        run.trainer.train(report=lambda _: None)
        counts[preset] = run.policy.forwards
        rows = [json.loads(line) for line in (tmp_path / preset / "log.jsonl").read_text().splitlines()]
        assert sum(row["forwards"] for row in rows) == counts[preset]
        assert rows[0]["forwards"] > rows[1]["forwards"]  # the first update's are the rollout's too
    films, guided = 8, 2
    assert counts["flash"] == films * guided * (20 + 1 + 3)
    assert counts["flow"] == films * guided * 20 * (1 + 1 + 3)
    assert counts["flash"] < counts["flow"] / 3
