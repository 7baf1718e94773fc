"""Which shard a base run learns from at each step."""

from __future__ import annotations

from dataclasses import replace

from post_train.algorithms.base_training import shard_of
from post_train.recipes.diorama_base import recipe


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
