"""Commands that post-training brings to the `rushes` command line."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


class Recipe(StrEnum):
    """What can be trained."""

    VAE = "diorama-vae"
    LATENTS = "diorama-latents"
    BASE = "diorama-base"


_RUNS = Path("runs")


def train(
    recipe: Annotated[Recipe, typer.Argument(help="What to train; diorama-latents only prepares the base's data.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Its folder; an interrupted run goes on there.", show_default="runs/RECIPE"),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option(help="The VAE that makes the latents.", show_default="runs/diorama-vae/model")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes, with a checkpoint.")] = math.inf,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; one beside other work is often the best.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 where the processor has matrix units for it")
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the transformer first (a minute; 1.4 times the steps a second).")
    ] = False,
    start_from: Annotated[
        Path | None, typer.Option(help="A model folder whose weights a new run begins with.", show_default="nothing")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Train nothing: write the base run's averaged weights as a model folder here.")
    ] = None,
) -> None:
    """Train the built-in model's parts from nothing, resumably: VAE, then latents and base."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch  # noqa: PLC0415  after the thread count is known, and not before the command is called

    torch.set_num_threads(threads)
    from post_train.precision import best_precision, named_precision  # noqa: PLC0415
    from post_train.recipes import diorama_base, diorama_vae  # noqa: PLC0415
    from post_train.runs import BaseRun, RunOptions, train_vae  # noqa: PLC0415

    console = Console(stderr=True)
    options = RunOptions(
        folder=run or _RUNS / (Recipe.BASE if recipe is Recipe.LATENTS else recipe),
        precision=named_precision(precision) if precision else best_precision(),
        compile_model=compile_model,
        minutes=minutes,
        start_from=start_from,
    )

    def report(line: str) -> None:
        console.print(line, highlight=False)

    if recipe is Recipe.VAE:
        train_vae(diorama_vae.recipe(), options, report)
        return
    base = BaseRun(diorama_base.recipe(), options, vae=vae or _RUNS / Recipe.VAE / "model")
    if export is not None:
        base.export(export)
    elif recipe is Recipe.LATENTS:
        base.cache.build_all(report)
    else:
        base.train(report)
