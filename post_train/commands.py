"""Commands that post-training brings to the `rushes` command line; `train` is a group, one command a kind of run."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engines.command_group import command_group
from post_train.command_options import (
    DeviceName,
    PrecisionName,
    RunSteps,
    Threads,
    chosen_device,
    chosen_precision,
    start_torch,
    tell,
)
from post_train.data_command import best_of, curate
from post_train.grpo_command import curves, grpo, merge
from post_train.judge_command import reward
from post_train.labels_command import to_label
from post_train.sft_command import sft
from post_train.visual_command import films, visual

if TYPE_CHECKING:
    from post_train.recipes.diorama_base import BaseRecipe
    from post_train.recipes.diorama_vae import VaeRecipe


class Recipe(StrEnum):
    """What can be trained."""

    VAE = "diorama-vae"
    DECODER = "diorama-decoder"
    LATENTS = "diorama-latents"
    BASE = "diorama-base"


_RUNS = Path("runs")
_Run = Annotated[
    Path | None, typer.Option(help="Its folder; an interrupted run goes on there.", show_default="runs/RECIPE")
]
_Vae = Annotated[
    Path | None, typer.Option(help="The VAE that makes the latents.", show_default="runs/diorama-vae/model")
]
_Workers = Annotated[
    int, typer.Option(min=0, help="Processes that render clips for the base's latents; 0: this one does.")
]
_Beside = Annotated[
    bool,
    typer.Option("--latents-beside", help="Wait for latents that another `train diorama-latents` makes meanwhile."),
]
_Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the transformer first (a minute; 1.4 times the steps a second).")
]
_StartFrom = Annotated[
    Path | None, typer.Option(help="A model folder whose weights a new run begins with.", show_default="nothing")
]
_Export = Annotated[
    Path | None, typer.Option(help="Train nothing: write the base run's averaged weights as a model folder here.")
]


@command_group
def train() -> None:
    """Train the built-in model's parts or its judges from nothing, or any model further, resumably."""


@train.command(Recipe.VAE, help="Train the built-in model's VAE from nothing, resumably.")
@train.command(Recipe.DECODER, help="Train a wider decoder for the VAE's encoder, which stays as it is, resumably.")
@train.command(Recipe.LATENTS, help="Prepare the base's data: latents of the wild split, by the VAE.")
@train.command(Recipe.BASE, help="Train the built-in model's transformer and text encoder from nothing, resumably.")
def train_diorama(
    context: typer.Context,
    run: _Run = None,
    vae: _Vae = None,
    steps: RunSteps = None,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes, with a checkpoint.")] = math.inf,
    threads: Threads = 1,
    precision: PrecisionName = None,
    device: DeviceName = None,
    workers: _Workers = 0,
    latents_beside: _Beside = False,
    compile_model: _Compile = False,
    start_from: _StartFrom = None,
    export: _Export = None,
) -> None:
    """Train the built-in model's parts from nothing, resumably: VAE, then latents and base."""
    recipe = Recipe(context.info_name or "")
    start_torch(threads)
    from post_train.recipes import diorama_base, diorama_vae  # noqa: PLC0415
    from post_train.runs import BaseRun, RunOptions, train_vae  # noqa: PLC0415

    # The VAE's recipes are for a core: their clips are small and many.
    of_base = recipe in {Recipe.LATENTS, Recipe.BASE}
    place = chosen_device(device if of_base else device or "cpu")
    if not of_base and place.type != "cpu":
        raise ValueError(f"{recipe} trains on a CPU; leave --device out")
    options = RunOptions(
        folder=run or _RUNS / (Recipe.BASE if recipe is Recipe.LATENTS else recipe),
        precision=chosen_precision(precision, place.type),
        compile_model=compile_model,
        minutes=minutes,
        start_from=start_from,
        device=place,
        workers=workers,
        made_beside=latents_beside,
    )
    if recipe is Recipe.VAE:
        train_vae(_lasting(diorama_vae.recipe(), steps), options, tell)
        return
    if recipe is Recipe.DECODER:
        finished = options.start_from or vae or _RUNS / Recipe.VAE / "model"
        train_vae(_lasting(diorama_vae.decoder_recipe(), steps), replace(options, start_from=finished), tell)
        return
    of_place = diorama_base.recipe() if place.type == "cpu" else diorama_base.gpu_recipe()
    base = BaseRun(_lasting(of_place, steps), options, vae=vae or _RUNS / Recipe.VAE / "model")
    if export is not None:
        base.export(export)
    elif recipe is Recipe.LATENTS:
        base.cache.build_all(tell)
    else:
        base.train(tell)


_Recipe = TypeVar("_Recipe", "VaeRecipe", "BaseRecipe")


def _lasting(recipe: _Recipe, steps: int | None) -> _Recipe:
    return replace(recipe, loop=recipe.loop.lasting(steps))


train.command("sft")(sft)
train.command("grpo")(grpo)
train.command("curves")(curves)
train.command("merge")(merge)
train.command("curate")(curate)
train.command("best-of")(best_of)
train.command("reward")(reward)
train.command("visual")(visual)
train.command("films")(films)
train.command("to-label")(to_label)
