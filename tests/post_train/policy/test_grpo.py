"""Runs of policy optimisation: they learn, stop where they must, go on exactly, and leave what is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from numpy.typing import NDArray

from post_train.checkpoint import CheckpointError, checkpoints
from post_train.grpo_command import curves
from post_train.lora import ATTENTION, Lora
from post_train.policy.collapse import CollapsedPolicyError
from post_train.policy.curves import read_curve
from post_train.policy.methods import DrawnSteps, ForwardProcess
from post_train.policy.rollout import RolledOut
from post_train.policy.task import DriftError
from post_train.policy.trust import Clip, Divergence, Guard
from post_train.policy.weights import Weighting, averaging_one
from post_train.precision import Precision
from post_train.recipes.grpo import PRESETS
from post_train.rewards.base import RewardError
from tests.post_train.policy.small_grpo import PROMPTS, Measure, brightness, small_grpo, small_run
from tests.post_train.run_states import assert_same_state


def _quiet(_line: str) -> None:
    """Nobody listens."""


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("preset", ["flash", pytest.param("nft", marks=pytest.mark.long)])
def test_a_policy_learns_what_is_rewarded(tiny_wan: Path, tmp_path: Path, preset: str) -> None:
    """Brightness rises by several of its own deviations between films of one prompt."""
    recipe = small_grpo(preset, steps=40, updates=1)
    recipe = replace(recipe, loop=replace(recipe.loop, lr=3e-3, sample_every=1000), guidance=1.0)
    small_run(recipe, tiny_wan, tmp_path / "run").trainer.train(report=_quiet)
    seen = [row["reward_vq"] for row in _rows(tmp_path / "run")]
    assert np.mean(seen[-8:]) > np.mean(seen[:8]) + 3 * np.std(seen[:8]) / np.sqrt(8)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_goes_on_to_the_bit(tiny_wan: Path, tmp_path: Path, preset: str) -> None:
    """Four updates at once, and two with two more after a restart, are one run: weights, average, optimizer, memory."""
    recipe = small_grpo(preset)
    small_run(recipe, tiny_wan, tmp_path / "whole").train()
    first = small_run(recipe, tiny_wan, tmp_path / "parted")
    first.trainer.sample()
    first.trainer.train(until=2, report=_quiet)
    again = small_run(recipe, tiny_wan, tmp_path / "parted", resume=True)
    again.train()
    assert again.trainer.step == 4
    assert_same_state(tmp_path / "whole", tmp_path / "parted")
    one, two = ((tmp_path / f / "validation.jsonl").read_text() for f in ("whole", "parted"))
    assert one == two


def test_a_run_stopped_off_its_schedule_validates_as_if_it_had_not_been(tiny_wan: Path, tmp_path: Path) -> None:
    """A look that the whole run would not take could choose other weights; the end is looked at, and remembered."""
    recipe = small_grpo(steps=6)
    recipe = replace(
        recipe,
        loop=replace(recipe.loop, sample_every=4, lr=1e-2),
        validation=replace(recipe.validation, every=4),
    )
    small_run(recipe, tiny_wan, tmp_path / "whole").train()
    first = small_run(recipe, tiny_wan, tmp_path / "parted")
    first.options = replace(first.options, minutes=0)
    first.train()
    assert [c.name for c in checkpoints(tmp_path / "parted")] == ["step-0"]
    first.trainer.train(until=2, report=_quiet)
    small_run(recipe, tiny_wan, tmp_path / "parted", resume=True).train()
    assert_same_state(tmp_path / "whole", tmp_path / "parted")
    looks = [json.loads(line)["step"] for line in (tmp_path / "parted" / "validation.jsonl").read_text().splitlines()]
    assert looks == [0, 4, 6]
    manifests = [json.loads((tmp_path / f / "best" / "manifest.json").read_text()) for f in ("whole", "parted")]
    assert manifests[0]["step"] == manifests[1]["step"]


def test_a_checkpoint_is_only_taken_between_rollouts(tiny_wan: Path, tmp_path: Path) -> None:
    """Within a rollout its films would be lost: an end in the middle saves nothing, nor does the clock."""
    recipe = small_grpo()
    recipe = replace(recipe, loop=replace(recipe.loop, checkpoint_minutes=0.0))
    run = small_run(recipe, tiny_wan, tmp_path / "run")
    run.trainer.train(until=1, report=_quiet)
    assert not checkpoints(tmp_path / "run")
    run.trainer.train(report=_quiet)
    assert [c.name for c in checkpoints(tmp_path / "run")] == ["step-2", "step-4"]


def test_the_ratio_is_one_before_the_first_update_and_not_after(tiny_wan: Path, tmp_path: Path) -> None:
    """The first update of a rollout is on policy to rounding; the second, by other weights, is not."""
    run = small_run(small_grpo(), tiny_wan, tmp_path / "run")
    run.trainer.train(report=_quiet)
    apart = [row["apart"] for row in _rows(tmp_path / "run")]
    assert max(apart[0], apart[2]) < 1e-6 < min(apart[1], apart[3])
    assert all(row["kl"] >= 0 for row in _rows(tmp_path / "run"))
    assert _rows(tmp_path / "run")[3]["kl"] > 0


@pytest.mark.parametrize("trust", [Clip(), Guard(), Divergence()])
def test_a_replay_that_differs_from_its_rollout_is_refused(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Any
) -> None:
    """Velocities that are off by a hundredth, as another precision would have them, start no run."""
    recipe = small_grpo()
    assert isinstance(recipe.policy.method, DrawnSteps)
    method = replace(recipe.policy.method, trust=trust)
    run = small_run(replace(recipe, policy=replace(recipe.policy, method=method)), tiny_wan, tmp_path / "run")
    true = run.policy.backend.velocity
    made = run.policy.replay

    def roughly(*arguments: Any) -> torch.Tensor:
        velocity = true(*arguments)
        return velocity + 0.05 * velocity.roll(1, -1)

    def replayed(*arguments: Any) -> Any:
        monkeypatch.setattr(run.policy.backend, "velocity", roughly)
        return made(*arguments)

    monkeypatch.setattr(run.policy, "replay", replayed)
    with pytest.raises(DriftError, match="rollout and replay differ in precision"):
        run.trainer.train(report=_quiet)
    assert not checkpoints(tmp_path / "run")


@pytest.mark.parametrize("shared", [True, False])
def test_films_noised_alike_teach_only_what_tells_them_apart(tiny_wan: Path, tmp_path: Path, shared: bool) -> None:
    """A film against itself, once good and once bad: no gradient, unless each has a noise of its own.

    Groups are never noised alike.
    """
    recipe = small_grpo("nft")
    method = recipe.policy.method
    assert isinstance(method, ForwardProcess)
    policy = replace(recipe.policy, method=replace(method, shared_noise=shared))
    run = small_run(replace(recipe, policy=policy), tiny_wan, tmp_path / "run")
    film = torch.randn(run.policy.engine.family.latent_shape(run.policy.sampling.spec))
    twice, other = (
        (RolledOut(film=i, latents=film, draws=()) for i in (0, 1)),
        RolledOut(film=2, latents=film, draws=()),
    )
    items = run.task.learner.items([*twice, other], [PROMPTS[0], PROMPTS[0], PROMPTS[1]], seed="any")
    noises = [i.draw.before - i.draw.after for i in items]
    assert torch.equal(noises[0], noises[2]) == shared
    assert not torch.equal(noises[0], noises[4])
    for item in items[:4]:
        said = torch.tensor([1.0 if item.draw.film == 0 else -1.0])
        run.task.learner.learn([item], said).losses.sum().backward()
    slope = [p.grad.abs().max() for p in run.module.parameters() if p.grad is not None]
    assert (float(max(slope)) < 1e-5) == shared


def test_a_replay_that_differs_where_it_learns_is_refused(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another graph or attention where gradients are recorded is the replay that matters; no weight has moved."""
    run = small_run(small_grpo(), tiny_wan, tmp_path / "run")
    true = run.policy.backend.velocity

    def roughly(*arguments: Any) -> torch.Tensor:
        velocity = true(*arguments)
        return velocity + 0.05 * velocity.roll(1, -1) * torch.is_grad_enabled()

    before = {n: p.detach().clone() for n, p in run.module.named_parameters()}
    monkeypatch.setattr(run.policy.backend, "velocity", roughly)
    with pytest.raises(DriftError, match="before any update the ratio is off by"):
        run.trainer.train(report=_quiet)
    assert all(torch.equal(p, before[n]) for n, p in run.module.named_parameters())


def test_slopes_are_those_of_unweighted_losses(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what a step counts would shrink what it is seen to weigh, and settle at its root."""
    seen = []
    for name, lean in (("even", 0.0), ("uneven", 0.9)):
        run = small_run(small_grpo("sage", steps=2), tiny_wan, tmp_path / name)
        told: list[dict[int, float]] = []
        weighed = lambda indices, lean=lean: averaging_one([1 - lean * (i % 2) for i in indices])  # noqa: E731
        monkeypatch.setattr(run.task.learner, "weights", weighed)
        monkeypatch.setattr(run.task.learner, "saw", told.append)
        run.trainer.train(report=_quiet)
        seen.append(told[0])
    assert len(seen[0]) == 5
    assert seen[0] == pytest.approx(seen[1], rel=1e-6)


def _sometimes_nan(frames: NDArray[np.uint8]) -> float:
    return float("nan") if frames.mean() > 0 else 0.0


def test_a_reward_that_is_no_number_stops_the_run_by_name(tiny_wan: Path, tmp_path: Path) -> None:
    """With the reward, the prompt and the seed; it is never a zero."""
    run = small_run(small_grpo(), tiny_wan, tmp_path / "run", reward=_sometimes_nan)
    with pytest.raises(RewardError, match=r"'measure' gave no score for film .*seed \d+.*it is nan"):
        run.trainer.train(report=_quiet)


def test_groups_that_say_nothing_are_dropped_and_counted(tiny_wan: Path, tmp_path: Path) -> None:
    """A reward that is the same for all films teaches nothing: no weight moves but by decay."""
    recipe = small_grpo(steps=2)
    recipe = replace(recipe, policy=replace(recipe.policy, weight_decay=0.0))
    run = small_run(recipe, tiny_wan, tmp_path / "run", reward=lambda _: 1.0)
    before = {n: p.detach().clone() for n, p in run.module.named_parameters()}
    run.trainer.train(report=_quiet)
    assert [row["dropped"] for row in _rows(tmp_path / "run")] == [2, 2]
    assert all(torch.equal(p, before[n]) for n, p in run.module.named_parameters())


def test_where_a_reward_likes_all_alike_novelty_still_tells_films_apart(tiny_wan: Path, tmp_path: Path) -> None:
    """The same films and reward drop no group once distances within the group count, and the manifest says so."""
    run = small_run(small_grpo(steps=2), tiny_wan, tmp_path / "run", reward=lambda _: 1.0, novelty=0.5)
    run.trainer.train(until=2, report=_quiet)
    assert [row["dropped"] for row in _rows(tmp_path / "run")] == [0, 0]
    assert run.manifest["rewards"][-1] == "novelty x 0.5"


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (lambda f: np.repeat(f[:1], len(f), axis=0), "are frozen"),
        (lambda f: np.full_like(f, 90) + 9 * np.arange(len(f), dtype=np.uint8)[:, None, None, None], "of one colour"),
    ],
)
def test_a_collapse_stops_the_run_before_it_is_learnt(
    tiny_wan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoilt: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    words: str,
) -> None:
    """Frozen films, and films of one colour; the checkpoint before stays."""
    recipe = small_grpo()
    recipe = replace(recipe, loop=replace(recipe.loop, checkpoint_minutes=0.0))
    run = small_run(recipe, tiny_wan, tmp_path / "run")
    run.trainer.train(until=2, report=_quiet)
    decode = run.policy.engine.family.decode
    monkeypatch.setattr(
        run.policy.engine.family, "decode", lambda latents: torch.from_numpy(spoilt(decode(latents).numpy()))
    )
    with pytest.raises(CollapsedPolicyError, match=words):
        run.trainer.train(report=_quiet)
    assert [c.name for c in checkpoints(tmp_path / "run")] == ["step-2"]


def test_validation_keeps_the_best_and_stops_in_time(tiny_wan: Path, tmp_path: Path) -> None:
    """A policy that is taught darkness is best before it began, by a judge of brightness: patience ends the run."""
    recipe = small_grpo(steps=20)
    recipe = replace(recipe, validation=replace(recipe.validation, patience=2))
    run = small_run(recipe, tiny_wan, tmp_path / "run", reward=lambda f: -brightness(f))
    run.validator.rewards = [Measure("light", brightness)]
    run.trainer.sample()
    run.validator.looks[0] = replace(run.validator.looks[0], score=1e9)
    run.trainer.train(report=_quiet)
    assert run.trainer.step == 4
    best = run.validator.best
    assert best is not None
    assert best.step == 0
    manifest = json.loads((tmp_path / "run" / "best" / "manifest.json").read_text())
    assert manifest["step"] == 0
    assert manifest["data"]["prompts"] == 5
    assert manifest["rewards"][0].startswith("measure ")


def test_a_lora_learns_on_attention_and_stock_diffusers_loads_it(tiny_wan: Path, tmp_path: Path) -> None:
    """The published form for Wan: an adapter of attention alone, written beside the merged model."""
    lora = Lora(rank=4, alpha=8, targets=ATTENTION)
    run = small_run(small_grpo(steps=2, lora=lora), tiny_wan, tmp_path / "run")
    assert all("lora" in name and "attn" in name for name, _ in run.module.named_parameters())
    run.train()
    assert WanPipeline.from_pretrained(tmp_path / "run" / "best").transformer is not None
    pipe = WanPipeline.from_pretrained(tiny_wan)
    pipe.load_lora_weights(tmp_path / "run" / "best-lora")
    assert (tmp_path / "run" / "samples" / "policy-000000.png").is_file()


def test_runs_compare_at_equal_cost(tiny_wan: Path, tmp_path: Path) -> None:
    """A run ends behind so many rows; the table tells each arm's gain with its interval and what reaching one cost."""
    whole = small_grpo(steps=40, updates=1)
    flat = replace(whole.policy.method, weighting=Weighting.EQUAL)  # pyright: ignore[reportCallIssue]
    for name, recipe in {
        "flash": whole,
        "flat": replace(whole, policy=replace(whole.policy, method=flat)),
        "flow": replace(small_grpo("flow", steps=40, updates=1)),
    }.items():
        bounded = replace(recipe, policy=replace(recipe.policy, most_forwards=400))
        run = small_run(bounded, tiny_wan, tmp_path / name)
        run.train()
        assert 400 <= run.policy.forwards < 400 + 500
        assert run.trainer.step < 40
    curves(runs=[tmp_path / n for n in ("flash", "flat", "flow")], out=tmp_path / "curves")
    text = (tmp_path / "curves" / "curves.md").read_text()
    arms = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert arms == [
        "arm",
        "flash",
        "flash, without rectification",
        "flow",
        "arm",
        "flash, without rectification",
        "flow",
    ]
    assert "2 prompts" in text
    assert (tmp_path / "curves" / "curves.png").is_file()
    looks = read_curve(tmp_path / "flash").looks
    assert [look["step"] for look in looks[:2]] == [0, 2]
    gain = read_curve(tmp_path / "flash").gain_at(looks[1])
    assert gain.mean == pytest.approx(looks[1]["score"] - looks[0]["score"])
    with pytest.raises(ValueError, match="is no run of policy optimisation"):
        read_curve(tmp_path)


def test_another_run_is_not_gone_on_with(tiny_wan: Path, tmp_path: Path) -> None:
    """Without --resume a folder with a run is refused; with it, one of another recipe is told apart."""
    recipe = small_grpo(steps=2)
    small_run(recipe, tiny_wan, tmp_path / "run").train()
    with pytest.raises(CheckpointError, match="go on with it by --resume"):
        small_run(recipe, tiny_wan, tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run with recipe"):
        small_run(small_grpo(steps=4), tiny_wan, tmp_path / "run", resume=True).train()
    for what, words in {
        "validating judge": {"validating": Measure("other", brightness)},
        "validation prompts": {"validation_prompts": PROMPTS[2:4]},
        "precision": {"precision": "bf16"},
    }.items():
        with pytest.raises(CheckpointError, match=f"holds a run with {what}"):
            small_run(recipe, tiny_wan, tmp_path / "run", resume=True, **words).train()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_an_adapter_is_trained_in_fp32(tiny_wan: Path, tmp_path: Path, precision: Precision) -> None:
    """In bf16 a weight of 0.02 cannot move by 3e-5; beside a frozen model in bf16 all that learn still can."""
    recipe = small_grpo(steps=2, updates=1, lora=Lora(rank=4, alpha=8, targets=ATTENTION))
    recipe = replace(recipe, frozen="bf16", loop=replace(recipe.loop, lr=3e-5, warmup_steps=0))
    run = small_run(recipe, tiny_wan, tmp_path / "run", precision=precision)
    before = {n: p.detach().clone() for n, p in run.module.named_parameters()}
    frozen = {p.dtype for p in run.transformer.parameters() if not p.requires_grad and p.ndim > 1}
    assert (torch.bfloat16 in frozen) == (precision == "bf16")
    assert {p.dtype for p in before.values()} == {torch.float32}
    run.task.config = replace(run.task.config, drift_share=1e9)
    run.trainer.train(report=_quiet)
    moved = torch.cat([(p != before[n]).flatten() for n, p in run.module.named_parameters() if "lora_B" in n])
    assert float(moved.float().mean()) > 0.99
