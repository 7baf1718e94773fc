"""The recipe of Wan 2.1 1.3B, as it is published, from end to end on tiny random weights, with a scorer behind HTTP."""

from __future__ import annotations

import json
from pathlib import Path

from engines.engine import load_engine
from engines.types import GenerationResult
from post_train.checkpoint import checkpoints
from post_train.films import FilmOrder, request_of
from post_train.grpo_command import grpo
from post_train.lora import ATTENTION
from post_train.recipes.grpo import wan_grpo
from tests.post_train.policy.small_grpo import PROMPTS, Measure, brightness
from tests.post_train.rewards.serving import served


def test_the_settings_are_the_published_ones() -> None:
    """Twenty steps, guidance 4.5, rank 16 and alpha 32 on attention, groups of eight."""
    recipe = wan_grpo()
    assert (recipe.sampling_steps, recipe.guidance, recipe.policy.rollouts.size) == (20, 4.5, 8)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets) == (16, 32, ATTENTION)
    assert 3e-5 <= recipe.loop.lr <= 1e-4
    assert recipe.policy.rollouts.prompts * recipe.policy.rollouts.size >= (recipe.floor or 0)


def test_it_runs_from_prompts_to_served_weights(tiny_wan: Path, tmp_path: Path) -> None:
    """The command with scorers over HTTP for reward and validation; its best weights make films."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# mine\n" + "\n".join(PROMPTS) + "\n")
    with served(Measure("stand-in", brightness)) as address, served(Measure("other", brightness)) as validating:
        grpo(
            model=str(tiny_wan),
            recipe="wan-grpo",
            prompts=str(prompts),
            validation_prompts=str(prompts),
            reward=[f"{address}=0.5"],
            validate_by=[validating],
            out=tmp_path / "run",
            steps=2,
            prompts_per_rollout=2,
            group=2,
            validate_every=1,
            validation_count=2,
        )
    (last,) = checkpoints(tmp_path / "run")[-1:]
    manifest = json.loads((last / "manifest.json").read_text())
    assert manifest["rewards"][0].startswith("stand-in at http://127.0.0.1")
    assert manifest["rewards"][0].endswith("x 0.5")
    looks = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [0, 1, 2]
    assert looks[0]["dynamic_degree"] is None
    engine = load_engine(tmp_path / "run" / "best")
    order = FilmOrder(name="x", prompt=PROMPTS[0], seed=1, steps=2)
    films = [e for e in engine.generate([request_of(engine.card, order)]) if isinstance(e, GenerationResult)]
    assert films[0].frames.shape[-1] == 3
