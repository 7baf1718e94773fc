"""Runs of the judges of looks: training, measuring on kinds seen and unseen, and writing weights with a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from post_train.algorithms.preference_training import PreferenceTask, as_video
from post_train.data.diorama.corruptions import CORRUPTIONS, LOOKS, UNSEEN_LOOKS
from post_train.data.diorama.world import VERSION, make_clip
from post_train.data.model_films import ModelFilms, read_films
from post_train.precision import Precision
from post_train.recipes.judges_visual import VisualRecipe
from post_train.rewards.visual import WEIGHTS, load_visual, save_visual
from post_train.rewards.visual_network import VisualNetwork
from post_train.trainer import Trainer, recipe_hash

_FIRST_SEED = 1_600_000_000  # of clips that judges of looks are measured on, and never trained on
_CLIPS = 250
_KINDS = (*LOOKS, *UNSEEN_LOOKS, "frozen")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualOptions:
    """What the machine, not the recipe, decides; `films` is a folder of films by checkpoints, None trains without."""

    folder: Path
    precision: Precision
    compile_model: bool
    minutes: float
    films: Path | None = None
    weights: Path = WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wins:
    """How often the true clip won against one kind of corruption, and how often the judge's scores said it would.

    Scores are logits: a film that is d better is held to win with probability sigmoid(d).
    """

    share: float
    stated: float


@torch.no_grad()
def wins_over(
    network: VisualNetwork, kinds: tuple[str, ...], clips: int, *, first: int = _FIRST_SEED
) -> dict[str, Wins]:
    """Of each kind of corruption the true clip's wins in `clips` pairs, by the head's mean.

    Strengths are even over 0.3 to 1: below it some changes can hardly be seen. A frozen film stands for half at least.
    """
    ahead: list[torch.Tensor] = []
    for seed in range(first, first + clips):
        clip = make_clip(seed)
        rng = np.random.default_rng(seed)
        changed = [CORRUPTIONS[k].of(clip, float(rng.uniform(0.5 if k == "frozen" else 0.3, 1)), rng) for k in kinds]
        mean, _ = network(as_video([clip.frames, *(c for c in changed if c is not None)]))
        assert len(mean) == 1 + len(kinds)
        ahead.append(mean[0] - mean[1:])
    lead = torch.stack(ahead)
    shares, stated = (lead > 0).float().mean(0).tolist(), torch.sigmoid(lead).mean(0).tolist()
    return {kind: Wins(share=s, stated=t) for kind, s, t in zip(kinds, shares, stated, strict=True)}


def summary(wins: dict[str, Wins]) -> dict[str, float]:
    """The mean share won over kinds seen in training and over unseen ones, what was stated of it, and each kind's."""
    found: dict[str, float] = {}
    for name, kinds in (("seen", LOOKS), ("unseen", UNSEEN_LOOKS)):
        own = [w for k, w in wins.items() if k in kinds]
        found[name] = sum(w.share for w in own) / len(own)
        found[f"{name}_stated"] = sum(w.stated for w in own) / len(own)
    return {k: round(v, 4) for k, v in {**found, **{k: w.share for k, w in wins.items()}}.items()}


def measured(network: VisualNetwork) -> dict[str, Any]:
    """What a card says of a judge's accuracy, on clean clips that no judge of looks trains on."""
    return {
        "measured_on": {"clips": _CLIPS, "first_seed": _FIRST_SEED, "strength": "0.3 to 1", "split": "clean"},
        "true_clip_wins": summary(wins_over(network, _KINDS, _CLIPS)),
        "kinds_unseen_in_training": sorted(UNSEEN_LOOKS),
    }


def measure_visual(folder: Path) -> dict[str, Any]:
    """Measures a finished judge anew and writes what was found into its card; returns the card."""
    network, card, _ = load_visual(folder)
    found = {**card, **measured(network)}
    save_visual(network, folder, found)
    return found


def train_visual(judge: str, recipe: VisualRecipe, options: VisualOptions, report: Callable[[str], None]) -> None:
    """Trains a judge of looks, or goes on with it, and writes its averaged weights with what was measured on them."""
    torch.manual_seed(recipe.loop.seed)
    films = read_films(options.films) if options.films is not None else None
    task = PreferenceTask(
        recipe.preference,
        precision=options.precision,
        films=films,
        measure=lambda network: summary(wins_over(network, _KINDS, 64)),
        compile_model=options.compile_model,
    )
    trainer = Trainer(task, recipe.loop, options.folder, recipe=recipe_hash(recipe))
    report(f"resumed at step {trainer.step}" if trainer.resume() else "a new run")
    trainer.train(minutes=options.minutes, report=report)
    trainer.average.copy_to(task.network)
    task.network.half().float()  # what is measured is what is shipped
    save_visual(task.network, options.weights / judge, _card(judge, recipe, trainer, task.network, films))


def _card(
    judge: str, recipe: VisualRecipe, trainer: Trainer, network: VisualNetwork, films: ModelFilms | None
) -> dict[str, Any]:
    return {
        "judge": judge,
        "dimension": "vq",
        "recipe": trainer.recipe,
        "seed": recipe.loop.seed,
        "step": trainer.step,
        "world_version": VERSION,
        "films": films.digest if films is not None else None,
        **measured(network),
    }
