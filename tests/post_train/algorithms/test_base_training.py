"""Which shard a base run learns from at each step, and what it logs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from post_train.algorithms.base_training import shard_of
from post_train.losses import noisy_mean
from post_train.recipes.diorama_base import gpu_recipe, recipe


def test_shards_come_in_order_and_are_learnt_from_again() -> None:
    """A step never asks for a shard beyond the next one, every shard is reached, and each about four times."""
    config = replace(recipe().base, latents=replace(recipe().base.latents, shards=12, shard_clips=96), batch=48)
    visits = [shard_of(step, config) for step in range(1, 2 * 12 * 4 + 1, 2)]
    assert [shard_of(step + 1, config) for step in range(1, 2 * 12 * 4 + 1, 2)] == visits, "a visit lasts two steps"
    for at, shard in enumerate(visits):
        assert shard <= max(visits[:at], default=-1) + 1
    assert set(visits) == set(range(12))
    assert visits[::4] == list(range(12))


def test_a_run_longer_than_its_shards_stays_among_them() -> None:
    """Past the last shard only old ones are drawn, all of them."""
    config = replace(recipe().base, latents=replace(recipe().base.latents, shards=3, shard_clips=48), batch=48)
    assert {shard_of(step, config) for step in range(13, 200)} == {0, 1, 2}


def test_a_gpu_draws_from_the_first_shards_at_once() -> None:
    """The first `ready` shards are all drawn from before another is due, and then one comes each `visits` visits."""
    base = gpu_recipe().base
    a_visit = base.latents.shard_clips // base.batch
    first = [shard_of(1 + visit * a_visit, base) for visit in range(4 * base.visits)]
    assert all(shard <= base.ready + at // base.visits for at, shard in enumerate(first))
    assert len({shard for shard in first if shard < base.ready}) > base.visits
    assert [shard_of(1 + n * base.visits * a_visit, base) for n in range(3)] == [base.ready + n for n in range(3)]


def test_the_two_recipes_train_one_model() -> None:
    """What a GPU trains differs in pace alone: model, latents' clips, texts and loss are those of the core's recipe."""
    core, gpu = recipe().base, gpu_recipe().base
    paced = replace(gpu, batch=core.batch, visits=core.visits, ready=core.ready)
    assert replace(paced, latents=replace(gpu.latents, shards=core.latents.shards)) == core


def test_the_mean_over_noisy_rows_falls_back_on_all() -> None:
    """Rows above a level of 0.75 alone count; where none is, every row does."""
    errors = torch.tensor([1.0, 2.0, 6.0])
    assert float(noisy_mean(errors, torch.tensor([0.5, 0.8, 0.9]))) == pytest.approx(4.0)
    assert float(noisy_mean(errors, torch.tensor([0.5, 0.1, 0.75]))) == pytest.approx(3.0)
