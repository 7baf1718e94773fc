"""`rushes train grpo` as it is typed: what it starts, and the sentences that mistakes get."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from post_train.evaluation.judging import load_judges
from post_train.grpo_changes import Changes, changed
from post_train.grpo_command import grpo
from post_train.grpo_rewards import check_apart, panel_of, validating_rewards
from post_train.policy.panel import let_go
from post_train.recipes.grpo import PRESETS, RECIPES, named_recipe
from tests.post_train.policy.small_grpo import Measure, brightness, contrast, small_grpo, small_run
from tests.post_train.rewards.serving import served


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_recipe_starts_as_it_is(recipe: str, preset: str) -> None:
    """Nothing that a command line leaves out makes settings that do not go together."""
    usual = named_recipe(recipe, preset)
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(Changes))
    assert changed(usual, Changes(**nothing | {"rectification": True, "iso_temporal": True})) == usual


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"preset": "magic"}, "preset 'magic' is unknown"),
        ({"recipe": "magic"}, "recipe 'magic' is unknown"),
        ({"trust": "magic"}, "trust region 'magic' is unknown"),
        ({"preset": "nft", "trust": "guard"}, "--trust is about drawn steps"),
        ({"trust": "guard", "kl": 0.1}, "--kl goes with --trust clip or kl"),
        ({"preset": "flow", "rectification": False}, "no rectification to leave out"),
        ({"preset": "mix", "iso_temporal": False}, "does not draw one step a film"),
        ({"steps": 3, "updates": 2}, "3 steps end within a rollout"),
        ({"group": 1}, "a group of 1 has nothing to compare"),
        ({"group": 8, "extremes": 4}, "the best and worst 4 are all of a group of 8"),
        ({"rule": "magic"}, "rule 'magic' is unknown"),
        ({"preset": "nft", "rule": "cps"}, "--rule is about drawn steps"),
        ({"mixing": "shaken"}, "mixing 'shaken' is unknown; choose one of sum, each"),
        ({"levels": 4}, "--levels is about preset nft"),
        ({"preset": "nft", "levels": 30, "reward": ["ta"], "validate_by": ["validation"]}, "learnt at 30 noise levels"),
        ({"learning_rate": math.inf}, "--learning-rate is inf"),
        ({"minutes": math.nan}, "--minutes is nan"),
        ({"prompts_per_rollout": 3, "updates": 2}, "3 groups do not divide into 2 updates"),
        ({"reward": ["beauty"]}, "reward 'beauty' is neither"),
        ({"reward": ["ta=-1"]}, "must be above 0"),
        ({"reward": ["novelty"]}, "a panel needs at least one reward"),
        ({"reward": ["ta"], "validate_by": ["held-out"]}, "the held-out judge chooses nothing"),
        ({"prompts": "nowhere.txt"}, "nowhere.txt is no file of prompts"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_get_a_sentence(tiny_wan: Path, tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    """What the command line turns into one sentence and exit code 2."""
    with pytest.raises(ValueError, match=sentence):
        grpo(**{"model": str(tiny_wan), "out": tmp_path / "run", **arguments})


@pytest.mark.parametrize(
    ("preset", "wanted", "fewer"),
    [
        ("flash", {"rule": "integrated"}, 0),
        ("flash", {"mixing": "sum"}, 0),
        ("flash", {"extremes": 1}, 4 * 3),
        ("nft", {"levels": 3}, -8 * (1 + 1 + 3)),
    ],
)
def test_what_is_typed_is_run(tiny_wan: Path, tmp_path: Path, preset: str, wanted: dict[str, Any], fewer: int) -> None:
    """Two rewards, a rollout of 8 films: other rules, mixings, extremes and levels learn otherwise, and cost theirs."""
    small: dict[str, Any] = {"prompt_count": 2, "prompts_per_rollout": 2, "group": 4, "sampling_steps": 5, "lora": 0}
    rows = []
    with served(Measure("one", brightness)) as bright, served(Measure("two", contrast)) as apart:
        small |= {"reward": [f"{bright}=2", apart], "validation_count": 0, "guidance": 1.0, "steps": 1, "updates": 1}
        for name, options in (("usual", {}), ("other", wanted)):
            grpo(**{"model": str(tiny_wan), "preset": preset, "out": tmp_path / name, **small, **options})
            (line,) = (tmp_path / name / "log.jsonl").read_text().splitlines()
            rows.append(json.loads(line))
    usual, other = rows
    assert other["grad_norm"] != pytest.approx(usual["grad_norm"], rel=1e-3)
    assert other["forwards"] == usual["forwards"] - fewer


def test_the_size_of_an_update_is_told_with_its_floor(tiny_wan: Path, tmp_path: Path) -> None:
    """Prompts x films, and a warning where fewer are learnt from than ever worked."""
    told = small_run(small_grpo(), tiny_wan, tmp_path / "run").effective_batch()
    assert told.startswith("flash: 2 prompts x 4 films = 8 a rollout, in 2 updates, on 1 rank; 4 an update, and its")


def test_who_rewards_does_not_choose() -> None:
    """Whatever it is called: a scorer's address for both, our reward judge behind one, the held-out judge as either."""
    with served(Measure("one", brightness)) as address, served(Measure("two", brightness)) as other:
        panel = panel_of([address])
        for words, mistake in (([address], "rewards and validates"), ([other, other], "two rewards validate vq")):
            rewards = validating_rewards(words)
            with pytest.raises(ValueError, match=mistake):
                check_apart(panel, rewards)
            let_go(rewards)
        rewards = validating_rewards([other])
        check_apart(panel, rewards)
        let_go(rewards)
        panel.close()
    kept_out = load_judges("held_out").rewards[1]
    with served(kept_out) as address:
        panel = panel_of([address])
        with pytest.raises(ValueError, match="is the held-out judge"):
            check_apart(panel, validating_rewards(["validation"]))
        panel.close()
