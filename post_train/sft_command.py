"""`rushes train sft`: fine-tune a model on one's own clips, on one process or, started by torchrun, on several."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from post_train.recipes.sft import SftRecipe


def sft(
    model: Annotated[str, typer.Option(help="What to fine-tune: a diffusers Wan folder, diorama, or a hub id.")],
    data: Annotated[
        str, typer.Option(help="A folder of videos with captions, tar shards, a list of seeds (.json), or diorama.")
    ] = "diorama",
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder: checkpoints, log, and the result.", show_default="runs/RECIPE"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="diorama-sft, continue, best-of-8 or wan-sft.", show_default="diorama-sft for diorama, else wan-sft"
        ),
    ] = None,
    lora: Annotated[int | None, typer.Option(min=0, help="Rank of a LoRA; 0 trains all weights.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The LoRA's alpha.", show_default="its rank")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes, with a checkpoint.")] = math.inf,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole run.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips a step, over all processes.")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Clips computed at once by a process.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels clips are cut to.", show_default="the model's")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels clips are cut to.", show_default="the model's")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.", show_default="the model's")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames a second.", show_default="the model's")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="How many seeds --data diorama takes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random in the run.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, or muon for all weights on one process.")] = None,
    checkpoint_minutes: Annotated[
        float | None, typer.Option(min=0, help="Minutes from checkpoint to checkpoint.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where encoded clips are kept.", show_default="OUT/cache")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 on a GPU or a processor with units for it")
    ] = None,
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the transformer first.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine, sharding the model by FSDP2.")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Train nothing: print parameters, memory a process and FLOPs a step.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Train nothing: write the LoRA of --out added to its model, as OUT/model.")
    ] = False,
) -> None:
    """Fine-tune a model on captioned clips, resumably: all weights or a LoRA, on one process or several."""
    if nproc > 1 and not plan and "LOCAL_RANK" not in os.environ:
        raise typer.Exit(_by_torchrun(nproc))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    from post_train.recipes.sft import named_recipe  # noqa: PLC0415  not before the command is called

    chosen = named_recipe(recipe or ("diorama-sft" if model == "diorama" else "wan-sft"))
    chosen = _adjusted(
        chosen,
        loop={
            **_shortened(chosen, steps),
            "lr": learning_rate,
            "seed": seed,
            "checkpoint_minutes": checkpoint_minutes,
        },
        sft={"batch": batch, "micro_batch": micro_batch, "optimizer": optimizer},
        geometry={"width": width, "height": height, "num_frames": frames, "fps": fps},
        diorama={"clips": clips},
    )
    chosen = _with_lora(chosen, lora, alpha)
    if plan:
        _print_plan(model, chosen, nproc)
        return
    folder = out or Path("runs") / chosen.name
    if merge:
        _merge(model, chosen, folder)
        return
    _train(
        model,
        data,
        chosen,
        folder=folder,
        cache=cache or folder / "cache",
        precision=precision,
        minutes=minutes,
        resume=resume,
        compile_model=compile_model,
        threads=threads,
    )


def _by_torchrun(nproc: int) -> int:
    """Starts this very command line again in `nproc` processes, and gives their exit code."""
    words = sys.argv[sys.argv.index("sft") + 1 :] if "sft" in sys.argv else sys.argv[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return subprocess.run([*torchrun, "-m", "post_train.sft_command", *words], check=False).returncode  # noqa: S603


def _shortened(recipe: SftRecipe, steps: int | None) -> dict[str, object]:
    """A run of other length, whose warm-up and decay keep their shares of it."""
    if steps is None:
        return {}
    share = steps / recipe.loop.steps
    return {
        "steps": steps,
        "warmup_steps": round(recipe.loop.warmup_steps * share),
        "decay_steps": round(recipe.loop.decay_steps * share),
    }


def _adjusted(recipe: SftRecipe, **changes: dict[str, object]) -> SftRecipe:
    """`recipe` with what was typed; None leaves it as it is."""
    for part, values in changes.items():
        given = {k: v for k, v in values.items() if v is not None}
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **given)})
    return recipe


def _with_lora(recipe: SftRecipe, rank: int | None, alpha: float | None) -> SftRecipe:
    from post_train.lora import Lora  # noqa: PLC0415

    if rank == 0:
        return replace(recipe, sft=replace(recipe.sft, lora=None), frozen="fp32")
    if rank is None and recipe.sft.lora is None:
        if alpha is not None:
            raise ValueError("--alpha belongs to a LoRA; give its rank by --lora")
        return recipe
    rank = rank or (recipe.sft.lora.rank if recipe.sft.lora else 0)
    optimizer = "adamw"  # Muon's orthogonal steps are for whole matrices, not for factors of one
    return replace(
        recipe, sft=replace(recipe.sft, lora=Lora(rank=rank, alpha=alpha or float(rank)), optimizer=optimizer)
    )


def _print_plan(model: str, recipe: SftRecipe, ranks: int) -> None:
    from post_train.sft_plan import plan_of  # noqa: PLC0415

    typer.echo(plan_of(model, recipe, ranks=ranks))


def _merge(model: str, recipe: SftRecipe, folder: Path) -> None:
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.sft_run import export_checkpoint  # noqa: PLC0415

    written = export_checkpoint(recipe, find_model(model), folder, merge=True)
    typer.echo(f"wrote {written}")


def _train(
    model: str,
    data: str,
    recipe: SftRecipe,
    *,
    folder: Path,
    cache: Path,
    precision: str | None,
    minutes: float,
    resume: bool,
    compile_model: bool,
    threads: int,
) -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.data.sources import open_source  # noqa: PLC0415
    from post_train.distributed import leave_ranks, start_ranks  # noqa: PLC0415
    from post_train.precision import best_precision, named_precision  # noqa: PLC0415
    from post_train.sft_run import SftOptions, SftRun, training_spec  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    chosen = named_precision(precision) if precision else ("bf16" if cuda else best_precision())
    if chosen == "fp32" and recipe.frozen == "bf16":
        recipe = replace(recipe, frozen="fp32")
    options = SftOptions(
        folder=folder,
        cache=cache,
        precision=chosen,
        minutes=minutes,
        resume=resume,
        compile_model=compile_model,
    )
    console = Console(stderr=True)

    def report(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    parent = find_model(model)
    spec = training_spec(recipe.geometry, parent)
    d = recipe.diorama
    source = open_source(data, num_frames=spec.num_frames, split=d.split, first_seed=d.first_seed, clips=d.clips)
    ranks = start_ranks(torch.device("cuda" if cuda else "cpu"))
    try:
        run = SftRun(recipe, options, model=parent, source=source, ranks=ranks, report=report)
        run.report(run.effective_batch())
        run.train()
    finally:
        leave_ranks(ranks)


def main() -> None:
    """The command by itself, as torchrun calls it; an expected error is one sentence and exit code 2."""
    from engines.errors import EngineError  # noqa: PLC0415

    try:
        typer.run(sft)
    except (ValueError, OSError, EngineError) as error:
        sys.stderr.write(f"rushes: {' '.join(str(error).split())}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
