"""Fine-tuning any Wan: it learns, goes on exactly after a SIGKILL, and leaves what stock diffusers loads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from engines.card import read_card
from engines.engine import load_engine
from engines.errors import EngineError, InvalidModel
from post_train.algorithms.sft import text_columns
from post_train.checkpoint import CheckpointError, checkpoints, latest_checkpoint
from post_train.lora import Lora
from post_train.model_parts import load_transformer
from post_train.sft_command import sft
from post_train.sft_run import export_checkpoint
from post_train.trainer import TrainingDivergedError, step_generator
from tests.post_train.run_states import assert_same_state
from tests.post_train.small_sft import small_run, small_sft, write_clips
from tests.tiny_wan import build_tiny_wan, save_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five clips with captions."""
    return write_clips(tmp_path_factory.mktemp("clips") / "films")


@pytest.mark.parametrize("rank", [0, 4])
def test_a_killed_run_goes_on_to_the_bit(tiny_wan: Path, clips: Path, tmp_path: Path, rank: int) -> None:
    """`rushes train sft`, killed by SIGKILL in the middle and resumed, ends in the tensors of an undisturbed run."""
    same: dict[str, Any] = {"model": str(tiny_wan), "data": str(clips), "lora": rank, "steps": 8, "batch": 4}
    same |= {"checkpoint_minutes": 0.0, "precision": "fp32", "cache": tmp_path / "cache"}
    sft(**same, out=tmp_path / "whole")
    killed = tmp_path / "killed"
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in same.items()]
    victim = subprocess.Popen(
        [sys.executable, "-c", _STALLING, "train", "sft", *typed, f"--out={killed}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith("saved 4"):
            victim.send_signal(signal.SIGKILL)
            break
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    assert checkpoints(killed)[-1].name == "step-4"
    sft(**same, out=killed, resume=True)
    assert_same_state(tmp_path / "whole", killed)


# The command as it is, but that it says when a checkpoint is whole, and stops there for the fourth: no race to be lost.
_STALLING = """
import sys, threading
from post_train import trainer
save = trainer.Trainer.save
def telling(self):
    folder = save(self)
    print("saved", self.step, flush=True)
    if self.step == 4:
        threading.Event().wait()
    return folder
trainer.Trainer.save = telling
from server.cli import main
sys.argv[0] = "rushes"
main()
"""


def test_every_checkpoint_tells_its_origin(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """The manifest names parent, recipe with its hash, data version, seed, step and metrics."""
    run = small_run(small_sft(steps=2), tiny_wan, clips, tmp_path / "run")
    run.train()
    for folder in checkpoints(tmp_path / "run"):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["step"] == int(folder.name.removeprefix("step-"))
        assert manifest["parent"] == run.digests.whole
        assert manifest["recipe_content"]["sft"]["batch"] == 4
        assert manifest["data"]["version"] == run.clips.key
        assert manifest["seed"] == 32
        assert manifest["metrics"]["loss"] > 0
        assert len(manifest["recipe_hash"]) == 16


def test_a_full_run_leaves_a_folder_that_diffusers_loads(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """The exported transformer holds the averaged weights, everything else is the parent's to the byte."""
    run = small_run(small_sft(steps=3), tiny_wan, clips, tmp_path / "run")
    run.train()
    model = tmp_path / "run" / "model"
    stock = WanPipeline.from_pretrained(model)
    average = run.trainer.average.weights
    assert all(torch.equal(v, average[k]) for k, v in stock.transformer.state_dict().items())
    for name in ("vae", "text_encoder"):
        one, two = (next((f / name).glob("*.safetensors")).read_bytes() for f in (tiny_wan, model))
        assert one == two
    card, of_parent = read_card(model), read_card(tiny_wan)
    assert card == replace(of_parent, name=f"{of_parent.name}-{run.recipe.name}"), "served under a name of its own"
    assert load_engine(model).card.defaults.flow_shift == 3.0
    parent = load_transformer(tiny_wan, torch.float32).state_dict()
    assert not torch.equal(parent["proj_out.weight"], average["proj_out.weight"])


def test_stock_diffusers_loads_the_lora(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """A pipeline with the exported adapter, its alpha unlike its rank, equals the merged model, and not the parent."""
    recipe = small_sft(lora=Lora(rank=4, alpha=10.0), steps=4)
    run = small_run(recipe, tiny_wan, clips, tmp_path / "run")
    run.train()
    merged = export_checkpoint(tiny_wan, tmp_path / "run", merge=True)
    pipe = WanPipeline.from_pretrained(tiny_wan)
    x, t, text = torch.randn(1, 16, 3, 4, 4), torch.tensor([700.0]), torch.randn(1, 512, 32)
    with torch.no_grad():
        before = pipe.transformer(x, t, text, return_dict=False)[0]
        pipe.load_lora_weights(tmp_path / "run" / "lora")
        with_adapter = pipe.transformer(x, t, text, return_dict=False)[0]
        whole = load_transformer(merged, torch.float32)(x, t, text, return_dict=False)[0]
    assert float((before - with_adapter).abs().max()) > 1e-4
    assert torch.allclose(with_adapter, whole, atol=1e-5)


def test_accumulated_parts_are_the_whole_batch(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """A batch in parts of one, two or four, with or without checkpointing, gives one gradient to fp32 rounding."""
    gradients = []
    for micro, again in ((4, False), (2, True), (1, False), (3, True)):
        recipe = small_sft(micro_batch=micro)
        recipe = replace(recipe, sft=replace(recipe.sft, gradient_checkpointing=again))
        run = small_run(recipe, tiny_wan, clips, tmp_path / f"run-{micro}")
        for loss, _ in run.task.losses(1, step_generator(1, 1)):
            loss.backward()
        gradients.append({n: p.grad.clone() for n, p in run.task.module.named_parameters() if p.grad is not None})
    first, *others = gradients
    assert len(first) == len(list(run.task.module.named_parameters()))
    for other in others:
        assert all(torch.allclose(v, other[n], atol=2e-6) for n, v in first.items())


def test_the_loss_falls(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """Forty steps on five clips lower the flow-matching loss; a LoRA leaves every other weight as it was."""
    recipe = small_sft(lora=Lora(rank=4, alpha=8.0), steps=40)
    recipe = replace(recipe, loop=replace(recipe.loop, lr=2e-2))
    run = small_run(recipe, tiny_wan, clips, tmp_path / "run")
    run.trainer.train(report=lambda _: None)
    rows = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(rows[-10:]) < 0.97 * sum(rows[:10])
    frozen = load_transformer(tiny_wan, torch.float32).state_dict()
    live = run.task.transformer.state_dict()
    assert torch.equal(live["blocks.0.attn1.to_q.base_layer.weight"], frozen["blocks.0.attn1.to_q.weight"])


def test_channels_count_by_their_gain_if_the_recipe_says_so(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """The same step weighs each channel's error by what it does to the picture; power 0 weighs none."""
    recipe = small_sft()
    seen = replace(recipe, sft=replace(recipe.sft, gain_power=1.0))
    plain, weighted = (small_run(r, tiny_wan, clips, tmp_path / str(i)).task for i, r in enumerate((recipe, seen)))
    assert plain.data.channel_weights is None
    weights = weighted.data.channel_weights
    assert weights is not None
    assert float(weights.mean()) == pytest.approx(1)
    assert len(weights.unique()) > 1
    losses = [float(task.loss(1, step_generator(5, 1))[0].detach()) for task in (plain, weighted)]
    assert losses[0] != losses[1]
    weighted.data = replace(weighted.data, channel_weights=torch.ones_like(weights))
    assert float(weighted.loss(1, step_generator(5, 1))[0].detach()) == pytest.approx(losses[0], rel=1e-6)


def test_a_clip_alone_is_enough(tiny_wan: Path, tmp_path: Path) -> None:
    """One clip and a batch of four train: the clip is seen four times a step."""
    run = small_run(small_sft(steps=1), tiny_wan, write_clips(tmp_path / "one", 1), tmp_path / "run")
    run.train()
    assert run.clips.rows(1, 4) == [0, 0, 0, 0]


def test_a_caption_may_fill_all_its_tokens(tiny_wan: Path, tmp_path: Path) -> None:
    """A caption beyond 512 tokens is cut as in serving, and trains beside a short one and the empty prompt."""
    folder = write_clips(tmp_path / "long", 2)
    (folder / "clip-0.txt").write_text("a red ball rolls " * 400)
    run = small_run(small_sft(steps=2), tiny_wan, folder, tmp_path / "run")
    assert run.embeddings.length(run.clips.clips[0].caption) == 512
    run.train()
    short = small_run(small_sft(), tiny_wan, write_clips(tmp_path / "short", 1), tmp_path / "other")
    assert text_columns(short.task.data) % 8 == 0
    assert text_columns(short.task.data) > short.embeddings.length(short.clips.clips[0].caption)


def test_a_loss_that_is_no_number_stops_the_run(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """The error names the step, the checkpoint before it stays, and no weight has become NaN."""
    run = small_run(small_sft(steps=4), tiny_wan, clips, tmp_path / "run")
    run.trainer.train(until=2, report=lambda _: None)
    with torch.no_grad():
        next(run.task.module.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(TrainingDivergedError, match="step 3 is nan; the last checkpoint is intact"):
        run.trainer.train(report=lambda _: None)
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    assert found.step == 2
    assert all(bool(v.isfinite().all()) for v in found.tensors["weights"].values())


def test_a_folder_with_a_run_is_not_overwritten(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """Without --resume a run is refused; with it, one of other data or of another recipe is told what differs."""
    small_run(small_sft(steps=1), tiny_wan, clips, tmp_path / "run").train()
    with pytest.raises(CheckpointError, match="go on with it by --resume"):
        small_run(small_sft(steps=1), tiny_wan, clips, tmp_path / "run")
    fewer = write_clips(tmp_path / "fewer", 2)
    with pytest.raises(CheckpointError, match="holds a run with data"):
        small_run(small_sft(steps=1), tiny_wan, fewer, tmp_path / "run", resume=True).train()
    with pytest.raises(CheckpointError, match="holds a run with recipe"):
        small_run(small_sft(steps=2), tiny_wan, clips, tmp_path / "run", resume=True).train()


def test_other_wans_train_by_the_same_recipe(tmp_path: Path, clips: Path) -> None:
    """Wan 2.2's 5B form (residual VAE, 48 channels) trains; its two-expert form is refused by name."""
    five = save_pipeline(build_tiny_wan(expand_timesteps=True), tmp_path / "five")
    run = small_run(small_sft(steps=1), five, clips, tmp_path / "run")
    run.train()
    assert WanPipeline.from_pretrained(tmp_path / "run" / "model").config["expand_timesteps"]
    two = save_pipeline(build_tiny_wan(two_transformers=True), tmp_path / "two")
    with pytest.raises(InvalidModel, match="two transformers"):
        small_run(small_sft(steps=1), two, clips, tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"data": "nowhere"}, "nowhere: it is no data; name a folder of videos"),
        ({"lora": 2, "optimizer": "muon"}, "muon turns whole matrices"),
        ({"lora": 0, "optimizer": "sgd"}, "optimizer 'sgd' is unknown"),
        ({"width": 30}, "width is 30"),
        ({"width": 48}, "the world is square, 48x32 was asked for"),
        ({"recipe": "magic"}, "recipe 'magic' is unknown"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"),
        ({"lora": 0, "alpha": 2.0, "recipe": "diorama-sft"}, "an alpha belongs to a LoRA"),
        ({"lora": 2, "alpha": -2.0}, "an alpha above 0"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_get_a_sentence(tiny_wan: Path, tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    """What the command line turns into one sentence and exit code 2."""
    with pytest.raises((ValueError, EngineError), match=re.escape(sentence)):
        sft(**{"model": str(tiny_wan), "data": "diorama", "clips": 2, "out": tmp_path / "run", **arguments})


def test_without_a_run_there_is_nothing_to_merge(tiny_wan: Path, tmp_path: Path) -> None:
    """--merge names the folder that has no checkpoint."""
    with pytest.raises(CheckpointError, match="has no checkpoint to export"):
        sft(model=str(tiny_wan), out=tmp_path / "run", merge=True)


def test_an_adapter_is_merged_into_its_own_model_only(
    tiny_wan: Path, clips: Path, tmp_path: Path, make_tiny_wan: Callable[[int], Path]
) -> None:
    """--merge takes the adapter's size from the run; a model with other weights than the parent's is refused."""
    small_run(small_sft(lora=Lora(rank=3, alpha=5.0), steps=1), tiny_wan, clips, tmp_path / "run").train()
    sft(model=str(tiny_wan), out=tmp_path / "run", merge=True)
    assert (tmp_path / "run" / "model" / "transformer" / "config.json").is_file()
    with pytest.raises(CheckpointError, match="with other weights than"):
        sft(model=str(make_tiny_wan(1)), out=tmp_path / "run", merge=True)


def test_samples_are_drawn_from_the_average(tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    """A run that is told to sample leaves a contact sheet, and its live weights as they were."""
    recipe = small_sft(lora=Lora(rank=2, alpha=2.0), steps=2)
    recipe = replace(recipe, loop=replace(recipe.loop, sample_every=2))
    sampled = small_run(recipe, tiny_wan, clips, tmp_path / "run")
    sampled.train()
    assert (tmp_path / "run" / "samples" / "sft-000002.png").is_file()
    plain = small_run(small_sft(lora=Lora(rank=2, alpha=2.0), steps=2), tiny_wan, clips, tmp_path / "plain")
    plain.train()
    live = dict(sampled.task.module.named_parameters())
    assert all(torch.equal(p, live[n]) for n, p in plain.task.module.named_parameters())
