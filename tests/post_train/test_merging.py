"""`rushes train merge`: what runs have learnt adds up, on a model that is here, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engines.card import read_card
from engines.catalog import built_in
from post_train.checkpoint import AVERAGE, checkpoints
from post_train.merging import Part, merge, part_of
from post_train.model_parts import load_transformer, model_digests
from post_train.sft_export import export_transformer
from tests.command_line import run_rushes
from tests.post_train.policy.small_grpo import small_grpo, small_run

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def _child(parent: Path, folder: Path, *, seed: int, other: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """A model that a run might have made of `parent`; what it changed of each weight."""
    torch.manual_seed(seed)
    start = {n: v.detach() for n, v in load_transformer(parent, torch.float32).state_dict().items()}
    change = {n: 0.01 * torch.randn_like(v) for n, v in start.items()}
    manifest = {
        "recipe": f"recipe-{seed}",
        "recipe_content": {"geometry": {}},
        "parent": model_digests(parent).whole,
        "parent_name": read_card(parent).name,
        "data": {"prompts": 5},
        "step": seed,
    }
    export_transformer(folder, parent, {n: v + change[n] for n, v in start.items()}, manifest | (other or {}))
    return change


def test_what_runs_changed_adds_up(tiny_wan: Path, tmp_path: Path) -> None:
    """Each share of each difference, on the parent's weights; every other part is the parent's to the byte."""
    first, second = (_child(tiny_wan, tmp_path / name, seed=i) for i, name in enumerate(("a", "b"), start=1))
    parts = f"{tmp_path / 'a'}=0.5", f"{tmp_path / 'b'}=-2"
    done = run_rushes("train", "merge", str(tiny_wan), *parts, "--out", str(tmp_path / "sum"), "--guidance", "2.5")
    assert done.returncode == 0, done.stderr
    start, merged = load_file(tiny_wan / WEIGHTS), load_file(tmp_path / "sum" / WEIGHTS)
    assert merged.keys() == start.keys()
    for name, value in merged.items():
        torch.testing.assert_close(value, start[name] + 0.5 * first[name] - 2 * second[name], atol=1e-6, rtol=1e-5)
    card, parent = read_card(tmp_path / "sum"), read_card(tiny_wan)
    assert (card.name, card.defaults.guidance_scale, card.limits) == ("sum", 2.5, parent.limits)
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        for file in (tiny_wan / part).iterdir():
            assert (tmp_path / "sum" / part / file.name).read_bytes() == file.read_bytes()
    manifest = json.loads((tmp_path / "sum" / "manifest.json").read_text())
    assert manifest["parent"] == model_digests(tiny_wan).whole
    told = [(part["share"], part["recipe"], part["step"]) for part in manifest["parts"]]
    assert told == [(0.5, "recipe-1", 1), (-2, "recipe-2", 2)]


def test_a_part_counts_from_its_own_parent(tmp_path: Path) -> None:
    """A run from one built-in model, merged into another: only what the run changed is added."""
    base, tuned = built_in("diorama"), built_in("diorama-sft")
    change = _child(base, tmp_path / "a", seed=3)
    merge(tuned, [Part(tmp_path / "a", 1.0)], tmp_path / "sum", name="sum")
    start, merged = load_file(tuned / WEIGHTS), load_file(tmp_path / "sum" / WEIGHTS)
    for name, value in merged.items():
        torch.testing.assert_close(value.float(), start[name].float() + change[name], atol=2e-3, rtol=2e-3)


def test_a_checkpoint_counts_by_its_average(tiny_wan: Path, tmp_path: Path) -> None:
    """A run's last step is seldom its exported best, and its average is what it would export."""
    run = small_run(small_grpo(steps=2), tiny_wan, tmp_path / "run")
    run.train()
    last = checkpoints(tmp_path / "run")[-1]
    merge(tiny_wan, [Part(last, 3.0)], tmp_path / "sum", name="sum")
    start, merged, average = (load_file(p) for p in (tiny_wan / WEIGHTS, tmp_path / "sum" / WEIGHTS, last / AVERAGE))
    moved = 0.0
    for name, value in merged.items():
        torch.testing.assert_close(value, start[name] + 3 * (average[name] - start[name]), atol=1e-6, rtol=1e-5)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-4


@pytest.mark.parametrize("other", [{"parent": "0" * 64}, {"parent": "0" * 64, "parent_name": "diorama"}])
def test_a_part_of_unknown_origin_is_refused(tiny_wan: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    """Its difference from a model that it didn't begin as would be no change that a run made."""
    _child(tiny_wan, tmp_path / "a", seed=1, other=other)
    with pytest.raises(ValueError, match="with other weights than"):
        merge(tiny_wan, [Part(tmp_path / "a", 1.0)], tmp_path / "sum", name="sum")
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"has no manifest\.json, so its parent is not known"):
        merge(tiny_wan, [Part(tmp_path / "a", 1.0)], tmp_path / "sum", name="sum")
    assert not (tmp_path / "sum").exists()


def test_another_architecture_is_refused(tiny_wan: Path, tmp_path: Path) -> None:
    """Named by a weight that differs."""
    _child(built_in("diorama"), tmp_path / "a", seed=1)
    with pytest.raises(ValueError, match=r"differ in weight .*; only models of one architecture add up"):
        merge(tiny_wan, [Part(tmp_path / "a", 1.0)], tmp_path / "sum", name="sum")


def test_the_parent_is_never_written_over(make_tiny_wan: Callable[[int], Path], tmp_path: Path) -> None:
    """Merging into the parent's own folder would lose it."""
    parent = make_tiny_wan(5)
    _child(parent, tmp_path / "a", seed=1)
    before = model_digests(parent)
    with pytest.raises(ValueError, match="is or holds a model that is merged"):
        merge(parent, [Part(tmp_path / "a", 1.0)], parent, name="sum")
    assert model_digests(parent) == before


def test_nothing_is_lost_to_a_merge(tiny_wan: Path, tmp_path: Path) -> None:
    """A folder with a part in it, or with anything else, is left alone; an earlier merge is made anew."""
    _child(tiny_wan, tmp_path / "runs" / "a", seed=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    parts = [Part(tmp_path / "runs" / "a", 1.0)]
    for folder, why in ((tmp_path / "runs", "is or holds"), (parts[0].folder, "is or holds"), (other, "not empty")):
        with pytest.raises(ValueError, match=why):
            merge(tiny_wan, parts, folder, name="sum")
    assert (other / "notes.txt").read_text() == "mine"
    assert (parts[0].folder / "manifest.json").is_file()
    for share in (1.0, 2.0):
        merge(tiny_wan, [Part(parts[0].folder, share)], tmp_path / "sum", name="sum")
    assert json.loads((tmp_path / "sum" / "manifest.json").read_text())["parts"][0]["share"] == 2.0


@pytest.mark.parametrize("word", ["runs/a", "=1", "runs/a=", "runs/a=half", "runs/a=nan", "runs/a=inf", "runs/a=0"])
def test_a_share_that_is_none_is_refused(word: str) -> None:
    """With what to type instead."""
    with pytest.raises(ValueError, match=r"is no FOLDER=SHARE .*, such as runs/a/best=0\.5"):
        part_of(word)
    assert part_of("runs/a=b/best=0.5") == Part(Path("runs/a=b/best"), 0.5)
