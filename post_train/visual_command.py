"""`rushes train visual` trains a judge of looks; `rushes train films` makes the weaker films that it learns from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from post_train.command_options import (
    JudgeMinutes,
    PrecisionName,
    Threads,
    announce_threads,
    chosen_precision,
    start_torch,
    tell,
)
from post_train.rewards.roles import Role

_FIRST_CLIP = 1_200_000_000  # of clips whose captions no run trains a model on


def visual(
    judge: Annotated[Role, typer.Option(help="Which of the three judges; each has its own recipe.")] = Role.REWARD,
    films: Annotated[
        Path | None,
        typer.Option(help="A folder of films by checkpoints, weakest first by name.", show_default="renders alone"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Its folder; an interrupted run goes on there.", show_default="runs/visual-JUDGE"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Where the judge's folder is written.", show_default="runs/visual-JUDGE/judges"),
    ] = None,
    minutes: JudgeMinutes = math.inf,
    threads: Threads = 1,
    precision: PrecisionName = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the network first (a minute; three times the steps a second).")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train nothing: measure the judge in --weights anew and show its card.")
    ] = False,
) -> None:
    """Train a judge of looks (visual quality), resumably; in the end it is measured on spoilt clips of all kinds."""
    start_torch(threads)
    from post_train.recipes import judges_visual  # noqa: PLC0415
    from post_train.visual_runs import VisualOptions, measure_visual, train_visual  # noqa: PLC0415

    if measure:
        Console(stderr=True).print_json(
            data=measure_visual((weights or Path("runs") / f"visual-{judge}" / "judges") / judge)
        )
        return
    folder = run or Path("runs") / f"visual-{judge}"
    options = VisualOptions(
        folder=folder,
        weights=weights or folder / "judges",
        precision=chosen_precision(precision),
        compile_model=compile_model,
        minutes=minutes,
        films=films,
    )
    train_visual(judge, judges_visual.recipe(judge), options, tell)


def films(
    out: Annotated[Path, typer.Argument(help="The folder to write, such as FILMS/00-EARLY.")],
    model: Annotated[str, typer.Option(help="A built-in model's name or a model folder.")] = "diorama",
    count: Annotated[int, typer.Option(min=1, help="How many films.")] = 48,
    first_clip: Annotated[int, typer.Option(min=0, help="The clip whose caption is the first prompt.")] = _FIRST_CLIP,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Fewer steps make a weaker film.", show_default="the model's own")
    ] = None,
    round_trip: Annotated[
        bool, typer.Option("--round-trip", help="Not films of its own: the clips through the model's VAE, its best.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Make films of captions that no model trains on by the serving engine, for judges of looks to learn from."""
    announce_threads(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.data.model_films import FilmsWanted, make_films, make_round_trips  # noqa: PLC0415

    if round_trip and steps is not None:
        raise ValueError(f"a round trip has no steps; leave out --steps {steps} or --round-trip")

    wanted = FilmsWanted(first_clip=first_clip, count=count, steps=steps)
    if round_trip:
        make_round_trips(find_model(model), out, wanted)
        return
    make_films(find_model(model), out, wanted, tell)
