"""A preference head learns to rank, resumes exactly, and ships weights with what was measured on them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from post_train.algorithms.preference_training import PreferenceConfig, PreferenceTask
from post_train.data.model_films import ModelFilms
from post_train.data.preferences import Variety
from post_train.recipes import judges_visual
from post_train.recipes.judges_visual import VisualRecipe
from post_train.rewards.base import Dimension, Film, RewardError, scored
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.roles import Role
from post_train.rewards.visual import VisualQuality, VisualWeightsError, load_visual, save_visual
from post_train.rewards.visual_network import VisualConfig, VisualNetwork
from post_train.trainer import Trainer, recipe_hash
from post_train.visual_runs import VisualOptions, Wins, measure_visual, train_visual, wins_over

NETWORK = VisualConfig(mixing=Mixing.CONVOLUTION, fine=8, width=8, depth=1, heads=2)


def _recipe(steps: int) -> VisualRecipe:
    full = judges_visual.recipe(Role.REWARD)
    variety = Variety(side=32, num_frames=9, window=5, enlarged=0.0, local=0.3, by_models=0.0, held=0.1)
    return VisualRecipe(
        loop=replace(
            full.loop, steps=steps, lr=5e-3, warmup_steps=2, decay_steps=steps, sample_every=1000, log_every=5
        ),
        preference=PreferenceConfig(network=NETWORK, variety=variety, clips=2, weight_decay=0.0, data_seed=600_000_000),
    )


def _task(recipe: VisualRecipe, films: ModelFilms | None = None) -> PreferenceTask:
    torch.manual_seed(recipe.loop.seed)
    return PreferenceTask(recipe.preference, precision="fp32", films=films, measure=lambda _: {"seen": 0.5})


def _trainer(recipe: VisualRecipe, folder: Path) -> Trainer:
    return Trainer(_task(recipe), recipe.loop, folder, recipe=recipe_hash(recipe))


def test_it_learns_to_rank(tmp_path: Path) -> None:
    """After two hundred small steps the share of pairs in the right order is well above one half."""
    recipe = _recipe(200)
    trainer = _trainer(recipe, tmp_path)
    trainer.train(report=lambda _: None)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    late = float(np.mean([r["right"] for r in rows[-8:]]))
    assert late > 0.6
    assert late > rows[0]["right"]


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    """Four steps, a stop and two more give the weights of six steps in one go, bit for bit."""
    recipe = _recipe(6)
    whole = _trainer(recipe, tmp_path / "whole")
    whole.train(report=lambda _: None)
    first = _trainer(recipe, tmp_path / "parts")
    first.train(until=4, report=lambda _: None)
    second = _trainer(recipe, tmp_path / "parts")
    assert second.resume()
    second.train(report=lambda _: None)
    for (name, a), (_, b) in zip(
        whole.task.module.named_parameters(), second.task.module.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_films_by_models_take_part_and_must_fit() -> None:
    """With a share of 1 every group holds them; films of another size are refused before the first step."""
    recipe = _recipe(6)
    all_films = replace(
        recipe, preference=replace(recipe.preference, variety=replace(recipe.preference.variety, by_models=1.0))
    )
    take = np.zeros((2, 9, 32, 32, 3), np.uint8)
    films = ModelFilms(clip_seeds=(1, 2), takes=(take, take + 9), digest="d")
    loss, figures = _task(all_films, films).loss(1, torch.Generator())
    assert torch.isfinite(loss)
    assert set(figures) == {"right", "sigma"}
    wrong = replace(films, takes=(take[:, :, :16],))
    with pytest.raises(ValueError, match="make films of that size"):
        _task(all_films, wrong)


def test_a_run_ships_a_judge_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train_visual` leaves weights that load as a reward, and a card that names what was measured and on how many."""
    monkeypatch.setattr("post_train.visual_runs._CLIPS", 3)
    options = VisualOptions(
        folder=tmp_path / "run", precision="fp32", compile_model=False, minutes=5, weights=tmp_path / "weights"
    )
    train_visual(Role.VALIDATION, _recipe(3), options, lambda _: None)
    judge = VisualQuality(Role.VALIDATION, weights=tmp_path / "weights")
    assert judge.name == "visual-validation"
    assert judge.dimension is Dimension.VISUAL_QUALITY
    card = judge.card
    assert card["step"] == 3
    assert card["measured_on"]["clips"] == 3
    wins = card["true_clip_wins"]
    assert {"seen", "unseen", "noise", "salt_and_pepper", "frozen"} <= set(wins)
    assert all(0 <= v <= 1 for v in wins.values())
    assert measure_visual(tmp_path / "weights" / "validation") == card
    assert VisualQuality(Role.VALIDATION, weights=tmp_path / "weights").digest == judge.digest


def test_wins_are_counted_beside_what_was_stated() -> None:
    """A judge that dislikes every change wins always, though by so little that it states hardly more than a half."""

    class Darkness(VisualNetwork):
        def forward(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean = -(video - video[:1]).abs().flatten(1).mean(1)
            return mean, mean

    wins = wins_over(Darkness(NETWORK), ("noise", "blur"), 5)
    assert {k: w.share for k, w in wins.items()} == {"noise": 1.0, "blur": 1.0}
    assert all(0.5 < w.stated < 0.6 for w in wins.values())
    assert isinstance(wins["noise"], Wins)


def _saved(folder: Path, seed: int = 0) -> VisualNetwork:
    torch.manual_seed(seed)
    network = VisualNetwork(NETWORK)
    save_visual(network, folder, {"judge": "reward"})
    return network


def _film(name: str, side: int = 32, frames: int = 9) -> Film:
    pixels = np.random.default_rng(1).integers(0, 256, (frames, side, side, 3)).astype(np.uint8)
    return Film(name=name, prompt="", frames=pixels, fps=8)


@pytest.mark.parametrize("mixing", list(Mixing))
def test_saved_weights_score_as_they_did(mixing: Mixing, tmp_path: Path) -> None:
    """What is loaded is what was saved, to fp16; the digest changes with the weights and with nothing else."""
    torch.manual_seed(0)
    network = VisualNetwork(replace(NETWORK, mixing=mixing)).half().float().eval()
    save_visual(network, tmp_path / "reward", {"judge": "reward"})
    loaded, card, digest = load_visual(tmp_path / "reward")
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(video)[0], network(video)[0])
    assert card["judge"] == "reward"
    save_visual(network, tmp_path / "again", {"judge": "other"})
    assert load_visual(tmp_path / "again")[2] == digest
    with torch.no_grad():
        network.out.bias += 1
    save_visual(network, tmp_path / "changed", {"judge": "reward"})
    assert load_visual(tmp_path / "changed")[2] != digest


@pytest.mark.parametrize(("side", "frames"), [(32, 2), (64, 17), (50, 5), (96, 33)])
def test_any_size_is_scored(side: int, frames: int, tmp_path: Path) -> None:
    """Nothing assumes a size: what is no multiple of 8 is cut around the middle."""
    _saved(tmp_path / "reward")
    (score,) = scored(VisualQuality("reward", weights=tmp_path), [_film("a", side, frames)])
    assert score.noise > 1.28
    assert set(score.parts) == {"sigma", "mirror"}


def test_a_mirror_image_looks_the_same(tmp_path: Path) -> None:
    """A film and its mirror image have one score."""
    _saved(tmp_path / "reward")
    film = _film("a")
    mirrored = replace(film, frames=np.ascontiguousarray(film.frames[:, :, ::-1]))
    one, other = VisualQuality("reward", weights=tmp_path).score([film, mirrored])
    assert one.value == pytest.approx(other.value, abs=1e-5)


@pytest.mark.parametrize(("side", "frames"), [(8, 9), (32, 1)])
def test_what_has_no_looks_is_refused(side: int, frames: int, tmp_path: Path) -> None:
    """A film too small or of one frame is refused with its name."""
    _saved(tmp_path / "reward")
    with pytest.raises(RewardError, match=r"'visual-reward'.*film 'tiny'"):
        VisualQuality("reward", weights=tmp_path).score([_film("tiny", side, frames)])


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    """No folder, a truncated file, a card that does not fit: one sentence each, and no score."""
    with pytest.raises(VisualWeightsError, match="rushes train visual --judge reward"):
        VisualQuality("reward", weights=tmp_path)
    _saved(tmp_path / "reward")
    tensors = tmp_path / "reward" / "visual.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[: len(content) // 2])
    with pytest.raises(VisualWeightsError, match="does not hold the weights"):
        VisualQuality("reward", weights=tmp_path)
    tensors.write_bytes(content)
    card = tmp_path / "reward" / "visual.json"
    facts = json.loads(card.read_text())
    card.write_text(json.dumps({**facts, "network": {**facts["network"], "width": 16}}))
    with pytest.raises(VisualWeightsError, match="does not hold the weights"):
        VisualQuality("reward", weights=tmp_path)


def test_the_three_judges_differ() -> None:
    """In architecture, seed, data and augmentation; every recipe builds its network."""
    recipes = [judges_visual.recipe(role) for role in Role]
    assert len({r.preference.network for r in recipes}) == 3
    assert len({r.preference.variety for r in recipes}) == 3
    assert len({r.loop.seed for r in recipes}) == 3
    seeds = sorted(r.preference.data_seed for r in recipes)
    longest = max(r.loop.steps * r.preference.clips for r in recipes)
    assert all(b - a > longest for a, b in pairwise(seeds))
    for recipe in recipes:
        VisualNetwork(recipe.preference.network)
