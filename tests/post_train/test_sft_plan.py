"""The plan of a run agrees with what is really allocated, and the recipes are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from post_train.algorithms.sft import rows_per_rank
from post_train.lora import Lora, TrainedOnly, add_lora
from post_train.model_parts import load_transformer
from post_train.recipes.sft import RECIPES, diorama_sft, named_recipe, wan_sft, with_changes, with_lora
from post_train.sft_command import sft
from post_train.sft_plan import model_counts, plan, plan_of
from post_train.trainer import recipe_hash
from tests.post_train.small_sft import small_sft

SMALL, LARGE = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
_FULL = with_lora(wan_sft(), 0, None)


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=4.0)])
def test_the_plan_counts_what_is_there(tiny_wan: Path, lora: Lora | None) -> None:
    """Parameters and bytes of weights, gradients and slots equal those of the loaded model, to the byte."""
    recipe = small_sft(lora=lora)
    counts = model_counts(str(tiny_wan), recipe)
    needs = plan(counts, recipe, 1)
    transformer = load_transformer(tiny_wan, torch.float32)
    if lora is not None:
        add_lora(transformer, lora)
    trained = sum(p.numel() for p in TrainedOnly(transformer).parameters())
    assert needs.trained == trained
    assert needs.weights == 4 * sum(p.numel() for p in transformer.parameters())
    assert (needs.gradients, needs.optimizer, needs.average) == (4 * trained, 8 * trained, 4 * trained)
    halves = plan(counts, recipe, 2)
    assert halves.weights == needs.weights / 2
    assert halves.gathered > needs.gathered == 0


@pytest.mark.parametrize(
    ("name", "parameters", "teraflop"), [(SMALL, 1_418_996_800, 283.0), (LARGE, 14_288_491_584, 1678.4)]
)
def test_published_models_are_planned_at_full_size(name: str, parameters: int, teraflop: float) -> None:
    """1.3B and 14B on the meta device: their counts, and the FLOPs of one forward pass that the engine's tests know."""
    needs = plan(model_counts(name, _FULL), _FULL, 8)
    assert needs.parameters == needs.trained == parameters
    assert needs.forward_flops / 1e12 == pytest.approx(teraflop, abs=0.05)
    # Full fine-tuning: fp32 weight, gradient, two moments and average, 20 bytes a weight over 8 ranks.
    assert needs.weights + needs.gradients + needs.optimizer + needs.average == 20 * parameters / 8
    # 8 clips, three forwards and one more for what checkpointing drops.
    assert needs.step_flops == pytest.approx(8 * 4 * needs.forward_flops)


def test_a_lora_needs_far_less() -> None:
    """On one rank the 1.3B model's LoRA takes a third of what all weights take: frozen ones are two bytes each."""
    counts = model_counts(SMALL, wan_sft())
    lora = plan(counts, wan_sft(), 1)
    whole = plan(replace(counts, trained=counts.parameters), _FULL, 1)
    assert lora.weights == pytest.approx(2 * lora.parameters + 4 * lora.trained)
    assert lora.total < whole.total / 3
    assert lora.activations == whole.activations
    assert lora.step_flops < whole.step_flops


def test_the_plan_is_printed(capsys: pytest.CaptureFixture[str], tiny_wan: Path) -> None:
    """`--plan` needs no data and no folder, tells its formulas, and names a batch that does not divide."""
    sft(model=SMALL, plan=True, nproc=4)
    out = capsys.readouterr().out
    for words in ("parameters   1,418,996,800", "ranks", "activations, an estimate: micro-batch", "FLOPs: a forward"):
        assert words in out
    rows = [line.split()[:3] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [["1", "8", "8"], ["2", "4", "4"], ["4", "2", "2"], ["8", "1", "1"]]
    assert "2 parts" not in plan_of(str(tiny_wan), small_sft(), ranks=1)
    with pytest.raises(ValueError, match="does not divide among 3 ranks"):
        plan_of(str(tiny_wan), small_sft(), ranks=3)
    with pytest.raises(ValueError, match="on one process"):
        plan_of("diorama", diorama_sft(), ranks=2)
    with pytest.raises(ValueError, match="two transformers"):
        plan_of("Wan-AI/Wan2.2-T2V-A14B-Diffusers", wan_sft(), ranks=1)


def test_more_ranks_than_clips_are_refused() -> None:
    """A batch of two does not divide among four ranks, whose share would be nothing."""
    with pytest.raises(ValueError, match="a batch of 2 clips does not divide among 4 ranks"):
        rows_per_rank(replace(small_sft().sft, batch=2), 4)


def test_every_recipe_builds_and_has_its_own_hash() -> None:
    """All names give a recipe of that name; the controls differ from diorama-sft in name alone."""
    built = {name: named_recipe(name) for name in RECIPES}
    assert all(recipe.name == name for name, recipe in built.items())
    assert len({recipe_hash(r) for r in built.values()}) == len(built)
    for control in ("continue", "best-of-8"):
        assert replace(built[control], name="diorama-sft") == built["diorama-sft"]


def test_a_shorter_run_keeps_its_shape() -> None:
    """Warm-up and decay keep their share of the steps; what is not given stays."""
    short = with_changes(diorama_sft(), steps=200, loop={"lr": None}, sft={"batch": 4})
    assert (short.loop.warmup_steps, short.loop.decay_steps, short.loop.lr) == (5, 150, diorama_sft().loop.lr)
    assert short.sft.batch == 4
    assert with_changes(diorama_sft()) == diorama_sft()


def test_a_lora_is_asked_for_by_its_rank() -> None:
    """Rank 0 takes it away, its alpha is its rank unless told, and it learns by AdamW."""
    assert with_lora(wan_sft(), 0, None).sft.lora is None
    assert with_lora(wan_sft(), None, 7.0).sft.lora == Lora(rank=32, alpha=7.0)
    added = with_lora(diorama_sft(), 8, None).sft
    assert (added.lora, added.optimizer) == (Lora(rank=8, alpha=8.0), "adamw")
