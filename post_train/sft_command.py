"""`rushes train sft`: fine-tune a model on one's own clips, on one process or, started by torchrun, on several."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from post_train.command_options import announce_threads, chosen_precision, start_torch, tell
from post_train.torchrun import run_as_typed, run_by_torchrun

if TYPE_CHECKING:
    from post_train.recipes.sft import SftRecipe


_Model = Annotated[str, typer.Option(help="What to fine-tune: a diffusers Wan folder, diorama, or a hub id.")]
_Data = Annotated[
    str, typer.Option(help="A folder of videos with captions, tar shards, a list of seeds (.json), or diorama.")
]
_Out = Annotated[
    Path | None, typer.Option(help="The run's folder: checkpoints, log, and the result.", show_default="runs/RECIPE")
]
_Recipe = Annotated[
    str | None,
    typer.Option(
        help="diorama-sft, continue, best-of-8 or wan-sft.", show_default="diorama-sft for diorama, else wan-sft"
    ),
]
_Lora = Annotated[int | None, typer.Option(min=0, help="Rank of a LoRA; 0 trains all weights.")]
_Alpha = Annotated[float | None, typer.Option(help="The LoRA's alpha.", show_default="its rank")]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")]
_Minutes = Annotated[float, typer.Option(help="Stop after so many minutes, with a checkpoint.")]
_Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the whole run.")]
_Batch = Annotated[int | None, typer.Option(min=1, help="Clips a step, over all processes.")]
_MicroBatch = Annotated[int | None, typer.Option(min=1, help="Clips computed at once by a process.")]
_Rate = Annotated[float | None, typer.Option(min=0.0, help="The highest learning rate.")]
_Pixels = Annotated[int | None, typer.Option(min=1, help="Pixels clips are cut to.", show_default="the model's")]
_Frames = Annotated[int | None, typer.Option(min=1, help="Frames of a clip.", show_default="the model's")]
_Fps = Annotated[int | None, typer.Option(min=1, help="Frames a second.", show_default="the model's")]
_Clips = Annotated[int | None, typer.Option(min=1, help="How many seeds --data diorama takes.")]
_Seed = Annotated[int | None, typer.Option(help="Of everything random in the run.")]
_Optimizer = Annotated[str | None, typer.Option(help="adamw, or muon for all weights on one process.")]
_Every = Annotated[float | None, typer.Option(min=0, help="Minutes from checkpoint to checkpoint.")]
_Cache = Annotated[Path | None, typer.Option(help="Where encoded clips are kept.", show_default="OUT/cache")]
_Precision = Annotated[
    str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 on a GPU or a processor with units for it")
]
_Compile = Annotated[bool, typer.Option("--compile", help="Compile the transformer first.")]
_Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each process.")]
_Nproc = Annotated[int, typer.Option(min=1, help="Processes on this machine, sharding the model by FSDP2.")]
_Plan = Annotated[
    bool, typer.Option("--plan", help="Train nothing: print parameters, memory a process and FLOPs a step.")
]
_Merge = Annotated[
    bool, typer.Option("--merge", help="Train nothing: write the LoRA of --out added to its model, as OUT/model.")
]


def sft(
    model: _Model,
    data: _Data = "diorama",
    out: _Out = None,
    recipe: _Recipe = None,
    lora: _Lora = None,
    alpha: _Alpha = None,
    resume: _Resume = False,
    minutes: _Minutes = math.inf,
    steps: _Steps = None,
    batch: _Batch = None,
    micro_batch: _MicroBatch = None,
    learning_rate: _Rate = None,
    width: _Pixels = None,
    height: _Pixels = None,
    frames: _Frames = None,
    fps: _Fps = None,
    clips: _Clips = None,
    seed: _Seed = None,
    optimizer: _Optimizer = None,
    checkpoint_minutes: _Every = None,
    cache: _Cache = None,
    precision: _Precision = None,
    compile_model: _Compile = False,
    threads: _Threads = 1,
    nproc: _Nproc = 1,
    plan: _Plan = False,
    merge: _Merge = False,
) -> None:
    """Fine-tune a model on captioned clips, resumably: all weights or a LoRA, on one process or several.

    Several machines: torchrun --nnodes ... --nproc-per-node N -m post_train.sft_command, and the same options.
    """
    announce_threads(threads)
    from post_train.recipes.sft import check_run, named_recipe, with_changes, with_lora  # noqa: PLC0415  when called

    named = named_recipe(recipe or ("diorama-sft" if model == "diorama" else "wan-sft"))
    chosen = with_changes(
        with_lora(named, lora, alpha),
        steps=steps,
        loop={"lr": learning_rate, "seed": seed, "checkpoint_minutes": checkpoint_minutes},
        sft={"batch": batch, "micro_batch": micro_batch, "optimizer": optimizer},
        geometry={"width": width, "height": height, "num_frames": frames, "fps": fps},
        diorama={"clips": clips},
    )
    folder = out or Path("runs") / chosen.name
    machine = _Machine(folder, cache or folder / "cache", precision, minutes, resume, compile_model, threads)
    if nproc > 1 and not plan and not merge and "LOCAL_RANK" not in os.environ:
        check_run(chosen, nproc)  # before processes start, each of which would tell it
        raise typer.Exit(run_by_torchrun("sft", "post_train.sft_command", nproc))
    if plan:
        _print_plan(model, chosen, nproc)
    elif merge:
        _merge_lora(model, folder)
    else:
        _train(model, data, chosen, machine)


@dataclass(frozen=True, slots=True)
class _Machine:
    folder: Path
    cache: Path
    precision: str | None
    minutes: float
    resume: bool
    compile_model: bool
    threads: int


def _print_plan(model: str, recipe: SftRecipe, ranks: int) -> None:
    from post_train.sft_plan import plan_of  # noqa: PLC0415

    typer.echo(plan_of(model, recipe, ranks=ranks))


def _merge_lora(model: str, folder: Path) -> None:
    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.sft_run import export_checkpoint  # noqa: PLC0415

    written = export_checkpoint(find_model(model), folder, merge=True)
    typer.echo(f"wrote {written}")


def _train(model: str, data: str, recipe: SftRecipe, machine: _Machine) -> None:
    start_torch(machine.threads)
    import torch  # noqa: PLC0415

    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.data.sources import open_source  # noqa: PLC0415
    from post_train.distributed import leave_ranks, start_ranks  # noqa: PLC0415
    from post_train.sft_run import SftOptions, SftRun, training_spec  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    chosen = chosen_precision(machine.precision or ("bf16" if cuda else None))
    if chosen == "fp32" and recipe.frozen == "bf16":
        recipe = replace(recipe, frozen="fp32")
    options = SftOptions(
        folder=machine.folder,
        cache=machine.cache,
        precision=chosen,
        minutes=machine.minutes,
        resume=machine.resume,
        compile_model=machine.compile_model,
    )
    parent = find_model(model)
    spec = training_spec(recipe.geometry, parent)
    d = recipe.diorama
    source = open_source(data, num_frames=spec.num_frames, split=d.split, first_seed=d.first_seed, clips=d.clips)
    ranks = start_ranks(torch.device("cuda" if cuda else "cpu"))
    try:
        run = SftRun(recipe, options, model=parent, source=source, ranks=ranks, report=tell)
        run.report(run.effective_batch())
        run.train()
    finally:
        leave_ranks(ranks)


def main() -> None:
    """The command by itself, as torchrun calls it; an expected error is one sentence and exit code 2."""
    run_as_typed(sft)


if __name__ == "__main__":
    main()
