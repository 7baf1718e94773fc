"""The built-in model's recipes from nothing to a folder that stock diffusers and our engine load, at small size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file

from engines.engine import load_engine
from engines.types import GenerationRequest, GenerationResult, VideoSpec
from post_train.algorithms.base_training import BaseTask
from post_train.checkpoint import CheckpointError
from post_train.data.latents import weights_digest
from post_train.model_parts import model_digests
from post_train.runs import BaseRun, load_vae, train_vae
from tests.post_train.run_states import assert_same_state
from tests.post_train.small_recipes import options, small_base, small_vae


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained VAE."""
    run = tmp_path_factory.mktemp("runs") / "vae"
    train_vae(small_vae(), options(run), lambda _: None)
    return run / "model"


@pytest.fixture(scope="module")
def model(vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained base, exported."""
    root = tmp_path_factory.mktemp("base")
    run = BaseRun(small_base(), options(root / "run"), vae=vae)
    run.train(lambda _: None)
    run.export(root / "diorama")
    return root / "diorama"


def test_vae_latents_are_normalised_by_its_own_statistics(vae: Path) -> None:
    """The VAE folder holds measured means and deviations of its channels, not ones and zeros."""
    config = json.loads((vae / "config.json").read_text())
    assert len(config["latents_std"]) == 8
    assert all(s > 0 for s in config["latents_std"])
    assert config["latents_std"] != [1.0] * 8


def test_the_tokenizer_is_exported_as_it_was_trained(model: Path) -> None:
    """Training cuts and pads texts to its own length; the folder's tokenizer must not go on to."""
    content = json.loads((model / "tokenizer" / "tokenizer.json").read_text())
    assert content["truncation"] is None
    assert content["padding"] is None


def test_a_wider_decoder_leaves_the_latents_alone(vae: Path, tmp_path: Path) -> None:
    """Trained from the widened one behind a frozen encoder: another decoder, the same latents and their cache."""
    whole = small_vae()
    wider = replace(whole.vae, model={**whole.vae.model, "decoder_base_dim": 16}, frozen_encoder=True)
    train_vae(replace(whole, vae=wider), replace(options(tmp_path / "run"), start_from=vae), lambda _: None)
    before, after = load_vae(vae), load_vae(tmp_path / "run" / "model")
    assert weights_digest(after) == weights_digest(before)
    assert after.config["latents_std"] == before.config["latents_std"]
    assert after.config["decoder_base_dim"] == 16
    assert not torch.equal(after.decoder.conv_in.weight[:16], torch.cat([before.decoder.conv_in.weight] * 2)[:16])


def test_stock_diffusers_makes_the_same_film(model: Path) -> None:
    """WanPipeline.from_pretrained loads the exported folder, and its latents equal our engine's within 1e-4."""
    prompt, negative = "a red ball rolls to the left", "blurry"
    spec = VideoSpec(width=32, height=48, num_frames=9, fps=8)
    pipeline = WanPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    stock = pipeline(
        prompt=prompt,
        negative_prompt=negative,
        width=32,
        height=48,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=3.5,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).frames
    request = GenerationRequest(
        request_id="one",
        prompt=prompt,
        negative_prompt=negative,
        spec=spec,
        num_inference_steps=4,
        guidance_scale=3.5,
        flow_shift=3.0,
        sampler="unipc",
        seed=7,
    )
    results = [e for e in load_engine(model).generate([request]) if isinstance(e, GenerationResult)]
    assert np.abs(results[0].latents - stock[0].float().numpy()).max() < 1e-4


def test_the_export_says_where_it_comes_from(model: Path) -> None:
    """The manifest names recipe, world version, latents and how many clips were seen."""
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["step"] == 12
    assert manifest["clips_seen"] == 48
    assert {"recipe_hash", "world_version", "latents", "seed"} <= manifest.keys()
    assert not list(model.rglob("*.bin"))
    assert not any("_name_or_path" in path.read_text() for path in model.glob("*/config.json"))


def test_a_stopped_run_goes_on_exactly(vae: Path, tmp_path: Path) -> None:
    """Twelve steps at once and six plus six in a new process give the same weights, average and optimizer."""
    whole = BaseRun(small_base(), options(tmp_path / "whole" / "run"), vae=vae)
    whole.train(lambda _: None)
    first = BaseRun(small_base(), options(tmp_path / "parts" / "run"), vae=vae)
    first.trainer.train(until=6, report=lambda _: None)
    second = BaseRun(small_base(), options(tmp_path / "parts" / "run"), vae=vae)
    second.train(lambda _: None)
    assert_same_state(tmp_path / "whole" / "run", tmp_path / "parts" / "run")


_VICTIM = """
import sys
from dataclasses import replace
from pathlib import Path
from dataclasses import replace
from post_train.runs import BaseRun
from tests.post_train.small_recipes import options, small_base
recipe = small_base()
run = BaseRun(recipe, options(Path(sys.argv[1])), vae=Path(sys.argv[2]))
run.trainer.resume()
while run.trainer.step < 12:
    run.trainer.train(until=run.trainer.step + 1, report=print)
    print("saved", run.trainer.step, flush=True)
"""


def test_a_killed_run_goes_on_exactly(vae: Path, tmp_path: Path) -> None:
    """A SIGKILL in the middle of training costs nothing: the resumed run ends in the weights of an undisturbed one."""
    whole = BaseRun(small_base(), options(tmp_path / "whole" / "run"), vae=vae)
    whole.train(lambda _: None)
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(tmp_path / "killed" / "run"), str(vae)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith("saved 5"):
            victim.send_signal(signal.SIGKILL)
            break
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    again = BaseRun(small_base(), options(tmp_path / "killed" / "run"), vae=vae)
    again.train(lambda _: None)
    assert_same_state(tmp_path / "whole" / "run", tmp_path / "killed" / "run")


def test_a_run_starts_from_shipped_weights(model: Path, vae: Path, tmp_path: Path) -> None:
    """A new run that starts from an exported model begins with its weights and its tokenizer, and keeps them."""
    shipped = replace(options(tmp_path / "run"), start_from=model)
    run = BaseRun(small_base(), replace(shipped, minutes=0), vae=model / "vae")
    run.train(lambda _: None)
    run.export(tmp_path / "again")
    for part in ("transformer", "text_encoder"):
        one, two = (load_file(next((folder / part).glob("*.safetensors"))) for folder in (model, tmp_path / "again"))
        assert all(torch.equal(one[k], two[k]) for k in one)
    resumed = BaseRun(small_base(), options(tmp_path / "run"), vae=model / "vae")
    assert resumed.tokenizer.get_vocab() == run.tokenizer.get_vocab()


def test_a_run_tells_its_parent(model: Path, tmp_path: Path) -> None:
    """What a run started from stays in its manifest when it is resumed; the parent's clips are counted with its own."""
    shipped = replace(options(tmp_path / "run"), start_from=model, minutes=0)
    BaseRun(small_base(), shipped, vae=model / "vae").train(lambda _: None)
    resumed = BaseRun(small_base(), options(tmp_path / "run"), vae=model / "vae")
    resumed.trainer.train(until=2, report=lambda _: None)
    resumed.export(tmp_path / "child")
    manifest = json.loads((tmp_path / "child" / "manifest.json").read_text())
    assert manifest["parent"] == model_digests(model).whole
    assert manifest["clips_seen"] == 48 + 2 * 4


def test_a_run_goes_on_behind_what_its_parent_learnt_from(
    model: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step of a child is the step after its parent's last: other clips, other noise; from nothing it is 1."""
    drawn: list[tuple[int, int]] = []

    def spy(task: BaseTask, step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        drawn.append((step, generator.initial_seed()))
        return loss(task, step, generator)

    loss = BaseTask.loss
    monkeypatch.setattr(BaseTask, "loss", spy)
    for name, start_from in (("alone", None), ("child", model)):
        run = BaseRun(small_base(), replace(options(tmp_path / name), start_from=start_from), vae=vae)
        run.trainer.train(until=2, report=lambda _: None)
    assert [step for step, _ in drawn] == [1, 2, 13, 14]
    assert len({seed for _, seed in drawn}) == 4


def test_another_recipe_is_refused(vae: Path, tmp_path: Path) -> None:
    """A run folder is not continued by a recipe that did not start it."""
    run = BaseRun(small_base(), options(tmp_path / "run"), vae=vae)
    run.trainer.train(until=1, report=lambda _: None)
    run.trainer.recipe = "another"
    with pytest.raises(CheckpointError, match="holds a run of recipe"):
        run.trainer.resume()


def test_a_run_without_a_vae_is_refused(tmp_path: Path) -> None:
    """The base says what to train first."""
    with pytest.raises(CheckpointError, match="rushes train diorama-vae"):
        BaseRun(small_base(), options(tmp_path / "run"), vae=tmp_path / "nowhere")
