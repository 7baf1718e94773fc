"""`rushes train reward`: trains one of the three judges, or measures one that is trained."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
    minutes: Annotated[
        float, typer.Option(help="Stop after so many minutes, with a checkpoint and the judge as it is.")
    ] = math.inf,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; one beside other work is often the best.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 where the processor has matrix units for it")
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the reader first (a minute or two; twice the steps a second).")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train nothing: write and show the accuracy card of the run's judge.")
    ] = False,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="With --measure: the judge that comes with rushes, not the run's.")
    ] = False,
) -> None:
    """Train a judge that reads films (text alignment), resumably; in the end its accuracy card is measured."""
    if shipped and not measure:
        raise ValueError("--shipped names the judge to measure; it needs --measure")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch  # noqa: PLC0415  after the thread count is known, and not before the command is called

    torch.set_num_threads(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.judge_runs import JudgeRun, measured_card  # noqa: PLC0415
    from post_train.precision import best_precision, named_precision  # noqa: PLC0415
    from post_train.recipes import judges  # noqa: PLC0415
    from post_train.rewards.judges import judge_folder  # noqa: PLC0415
    from post_train.runs import RunOptions, load_vae  # noqa: PLC0415

    console = Console(stderr=True)

    def report(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    options = RunOptions(
        folder=run or Path("runs") / f"judge-{judge}",
        precision=named_precision(precision) if precision else best_precision(),
        compile_model=compile_model,
        minutes=minutes,
    )
    vae = vae or find_model("diorama") / "vae"
    folder = judge_folder(judge) if shipped else options.folder / "judge"
    if not measure:
        JudgeRun(judges.recipe(judge), options, vae=vae).train(report)
    measured_card(folder, load_vae(vae), report, precision=options.precision)
