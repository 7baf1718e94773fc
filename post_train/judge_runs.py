"""Runs of the judges' recipes: from a role and a run folder to a trained judge with its accuracy card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor

from post_train.algorithms.judge_calibration import temperatures
from post_train.algorithms.judge_losses import TruthBatch
from post_train.algorithms.judge_training import JudgeTask, batch_of
from post_train.algorithms.judge_training_clips import judge_clip
from post_train.algorithms.judge_training_looks import disturbed
from post_train.algorithms.judge_training_round_trips import RoundTrips, round_trip, vae_digest
from post_train.checkpoint import CheckpointError, latest_checkpoint
from post_train.data.diorama.asked import of_scene
from post_train.data.diorama.record import Clip
from post_train.data.diorama.world import VERSION, make_clip
from post_train.precision import Precision
from post_train.recipes.judges import JudgeRecipe
from post_train.rewards.judges import JudgeFacts, judge_from, save_judge
from post_train.rewards.judges_card import Card, card_text, measured, write_card
from post_train.rewards.labelled import read_labelled
from post_train.runs import RunOptions, kept_parent, lineage, load_vae
from post_train.trainer import Trainer, recipe_hash

Report = Callable[[str], None]

_CALIBRATION_SEED = 3_100_000_000
_CARD_SEED = 3_200_000_000
_CALIBRATION_CLIPS = 256
_CARD_CLIPS = 1000


class JudgeRun:
    """A judge's run: its task, trainer and VAE, wired together."""

    def __init__(self, recipe: JudgeRecipe, options: RunOptions, *, vae: Path) -> None:
        torch.manual_seed(recipe.loop.seed)
        self.recipe, self.options = recipe, options
        self.vae = load_vae(vae)
        trips = RoundTrips(
            options.folder.parent / "round-trips", self.vae, recipe.judge.round_trips, precision=options.precision
        )
        self.task = JudgeTask(recipe.judge, trips, precision=options.precision, compile_model=options.compile_model)
        start = options.start_from
        if start is not None:
            self._start_from(start)
        self.parent = kept_parent(options.folder / "parent.json", start and (lambda: _judge_facts(start)))
        self.trainer = Trainer(self.task, recipe.loop, options.folder, recipe=recipe_hash(recipe))

    def _start_from(self, folder: Path) -> None:
        """Takes the weights of a finished judge of the same network, or says what differs."""
        judge = judge_from(folder)
        if judge.facts.reader != self.recipe.judge.reader:
            raise CheckpointError(f"{folder} is a judge of another network than the {self.recipe.role} judge's")
        self.task.reader.load_state_dict(judge.reader.state_dict())

    @property
    def folder(self) -> Path:
        """Where the trained judge is written."""
        return self.options.folder / "judge"

    def train(self, report: Report) -> None:
        """Trains, or goes on with it, and writes the judge as it is then."""
        assert self.task.round_trips is not None
        report(f"resumed at step {self.trainer.step}" if self.trainer.resume() else "a new run")
        if self.options.minutes > 0:
            self.task.round_trips.build_all(report)
        self.trainer.train(minutes=self.options.minutes, report=report)
        self.export()

    def export(self) -> None:
        """Writes the newest checkpoint's averaged weights, with temperatures fitted on held-out clips."""
        if latest_checkpoint(self.options.folder) is None:
            raise CheckpointError(f"{self.options.folder} has no checkpoint; train first")
        self.trainer.resume()
        self.trainer.average.copy_to(self.task.reader)
        self.task.reader.half().float()
        facts = JudgeFacts(
            reader=self.recipe.judge.reader,
            side=self.recipe.judge.shapes[0].side,
            temperatures=temperatures(self.task.reader, self._calibration()),
            origin={
                "recipe": f"reward-{self.recipe.role}",
                "recipe_hash": self.trainer.recipe,
                "world_version": VERSION,
                "vae": vae_digest(self.vae),
                "seed": self.recipe.loop.seed,
                "step": self.trainer.step,
                **lineage(self.parent, self.trainer.step * self.recipe.judge.batch),
                "precision": self.options.precision,
            },
        )
        save_judge(self.folder, self.task.reader, facts)

    def _calibration(self) -> Iterator[tuple[Tensor, TruthBatch]]:
        """Held-out clips under the judge's own disturbances."""
        shape = self.recipe.judge.shapes[0]
        for start in range(0, _CALIBRATION_CLIPS, 16):
            clips = []
            for seed in range(_CALIBRATION_SEED + start, _CALIBRATION_SEED + start + 16):
                frames, truth = judge_clip(seed, side=shape.side, num_frames=shape.num_frames)
                clips.append((disturbed(np.random.default_rng(seed), frames, self.recipe.judge.looks), truth))
            yield batch_of(clips)


def _judge_facts(folder: Path) -> dict[str, Any]:
    """The hash of a judge and the clips it has seen."""
    judge = judge_from(folder)
    return {"digest": judge.digest, "clips_seen": judge.facts.origin["clips_seen"]}


def held_out_clips(count: int, *, side: int) -> list[Clip]:
    """Clean clips that no judge trains on."""
    return [make_clip(_CARD_SEED + i, side=side) for i in range(count)]


def measured_card(
    folder: Path,
    vae: AutoencoderKLWan,
    report: Report,
    *,
    precision: Precision,
    clips: int = _CARD_CLIPS,
    labels: Path | None = None,
) -> Card:
    """Measures the judge in `folder` on clean clips and on their round trips through `vae`, and writes its card.

    And on generated films that people labelled, if `labels` names a folder of them.
    """
    judge = judge_from(folder)
    labelled = read_labelled(labels) if labels is not None else []
    held_out = held_out_clips(clips, side=judge.facts.side)
    films, shown = [c.frames for c in held_out], [of_scene(c.scene) for c in held_out]
    conditions = {
        "clean": measured(judge, films, shown),
        "round_trip": measured(judge, round_trip(vae, films, precision=precision), shown),
    }
    if labelled:
        conditions["labelled"] = measured(judge, [f.frames for f in labelled], [f.shown for f in labelled])
    card = Card(
        judge=str(judge.facts.origin.get("recipe", judge.name)),
        digest=judge.digest,
        world_version=VERSION,
        vae=vae_digest(vae),
        conditions=conditions,
    )
    write_card(folder, card)
    report(card_text(card))
    return card
