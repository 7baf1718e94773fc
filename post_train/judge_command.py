"""`rushes train reward`: trains one of the three judges, or measures one that is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from post_train.command_options import (
    JudgeMinutes,
    PrecisionName,
    RunSteps,
    Threads,
    chosen_precision,
    start_torch,
    tell,
)
from post_train.rewards.roles import Role


def reward(
    judge: Annotated[Role, typer.Option(help="Which of the three judges; each has its own recipe.")] = Role.REWARD,
    run: Annotated[
        Path | None,
        typer.Option(help="Its folder; an interrupted run goes on there.", show_default="runs/judge-JUDGE"),
    ] = None,
    vae: Annotated[
        Path | None,
        typer.Option(help="The VAE whose round trips it must see through.", show_default="the built-in model's"),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="A finished judge whose weights a new run begins with.", show_default="nothing")
    ] = None,
    steps: RunSteps = None,
    minutes: JudgeMinutes = math.inf,
    threads: Threads = 1,
    precision: PrecisionName = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the reader first (a minute or two; twice the steps a second).")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train nothing: write and show the accuracy card of the run's judge.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="Films labelled by eye, for the card.", show_default="those that come with rushes"),
    ] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="With --measure: the judge that comes with rushes, not the run's.")
    ] = False,
) -> None:
    """Train a judge that reads films (text alignment), resumably; in the end its accuracy card is measured."""
    if shipped and not measure:
        raise ValueError("--shipped names the judge to measure; it needs --measure")
    start_torch(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.judge_runs import JudgeRun, measured_card  # noqa: PLC0415
    from post_train.recipes import judges  # noqa: PLC0415
    from post_train.rewards.judges import judge_folder  # noqa: PLC0415
    from post_train.rewards.labelled import LABELLED  # noqa: PLC0415
    from post_train.runs import RunOptions, load_vae  # noqa: PLC0415

    options = RunOptions(
        folder=run or Path("runs") / f"judge-{judge}",
        precision=chosen_precision(precision),
        compile_model=compile_model,
        minutes=minutes,
        start_from=start_from,
    )
    vae = vae or find_model("diorama") / "vae"
    folder = judge_folder(judge) if shipped else options.folder / "judge"
    if not measure:
        recipe = judges.recipe(judge)
        JudgeRun(replace(recipe, loop=recipe.loop.lasting(steps)), options, vae=vae).train(tell)
    labels = labels or (LABELLED if LABELLED.is_dir() else None)
    measured_card(folder, load_vae(vae), tell, precision=options.precision, labels=labels)
