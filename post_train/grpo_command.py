"""`rushes train grpo`: a model learns from its own films what rewards like, by the method of a preset."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from post_train.command_options import Rewards, announce_threads, chosen_precision, start_torch, tell
from post_train.torchrun import run_as_typed, run_by_torchrun

if TYPE_CHECKING:
    from post_train.grpo_changes import Changes
    from post_train.recipes.grpo import GrpoRecipe

_Model = Annotated[str, typer.Option(help="What learns: a diffusers Wan folder, a built-in name, or a hub id.")]
_Preset = Annotated[str, typer.Option(help="flash, flow, dance, mix, sage or nft.")]
_Recipe = Annotated[
    str | None, typer.Option(help="diorama-grpo or wan-grpo.", show_default="diorama-grpo for built-in models")
]
_Prompts = Annotated[str, typer.Option(help="diorama, or a text file with a prompt a line.")]
_Validating = Annotated[
    list[str] | None,
    typer.Option("--validate-by", help="A scorer's address, or validation for our judge that validates."),
]
_Out = Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/RECIPE-PRESET")]
_Rule = Annotated[
    str | None, typer.Option(help="linear, flow, constant, cps or integrated.", show_default="the preset's")
]
_Extremes = Annotated[
    int | None,
    typer.Option(min=1, help="Learn from so many best and worst films of a group.", show_default="from all"),
]
_Mixing = Annotated[
    str | None,
    typer.Option(
        help="each: a reward's advantages are its own, then added; sum: rewards are added first.",
        show_default="the preset's",
    ),
]
_Levels = Annotated[
    int | None, typer.Option(min=1, help="nft: noise levels that a film is learnt at.", show_default="2")
]
_Trust = Annotated[
    str | None, typer.Option(help="clip, kl, dual-kl, guard or divergence.", show_default="the preset's")
]
_Forwards = Annotated[int | None, typer.Option(min=1, help="End after so many rows computed, trained ones thrice.")]
_Kl = Annotated[float | None, typer.Option(min=0, help="Pull to the reference: trust clip or kl, or preset nft.")]
_SharedNoise = Annotated[
    bool | None,
    typer.Option(
        help="A group's films begin with one noise and differ by draws; nft: they are noised alike to be learnt from.",
        show_default="the preset's",
    ),
]
_ValidationCount = Annotated[int | None, typer.Option(min=0, help="Validation prompts; 0 for no validation.")]
_Precision = Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 on a GPU, else fp32")]
_Lora = Annotated[
    int | None,
    typer.Option(min=0, help="Rank of a LoRA on attention; 0 trains all weights.", show_default="the recipe's"),
]


def grpo(
    model: _Model = "diorama",
    preset: _Preset = "flash",
    recipe: _Recipe = None,
    prompts: _Prompts = "diorama",
    prompt_count: Annotated[int, typer.Option(min=1, help="How many captions --prompts diorama means.")] = 4096,
    reward: Rewards = None,
    validate_by: _Validating = None,
    validation_prompts: Annotated[str, typer.Option(help="diorama, or a text file.")] = "diorama",
    out: _Out = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the whole run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random in the run.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="The learning rate.")] = None,
    prompts_per_rollout: Annotated[int | None, typer.Option(min=1, help="Groups of a rollout.")] = None,
    group: Annotated[int | None, typer.Option(min=1, help="Films of a group.")] = None,
    shared_noise: _SharedNoise = None,
    updates: Annotated[int | None, typer.Option(min=1, help="Optimizer steps a rollout.")] = None,
    sampling_steps: Annotated[int | None, typer.Option(min=2, help="Denoising steps of a rollout.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Of rollouts; 1 for none.")] = None,
    rule: _Rule = None,
    mixing: _Mixing = None,
    extremes: _Extremes = None,
    levels: _Levels = None,
    trust: _Trust = None,
    kl: _Kl = None,
    lora: _Lora = None,
    rectification: Annotated[bool, typer.Option(help="Temporal gradient rectification, where a preset has it.")] = True,
    iso_temporal: Annotated[bool, typer.Option(help="One step a group, where a preset draws one a film.")] = True,
    validate_every: Annotated[int | None, typer.Option(min=1, help="Updates between two validations.")] = None,
    validation_count: _ValidationCount = None,
    most_forwards: _Forwards = None,
    checkpoint_minutes: Annotated[float | None, typer.Option(min=0, help="Minutes between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes, with a checkpoint.")] = math.inf,
    precision: _Precision = None,
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the transformer first.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine, sharding the model by FSDP2.")] = 1,
) -> None:
    """Let a model learn from its own films by rewards: Flash-GRPO and its rivals as presets, resumably."""
    if math.isnan(minutes):
        raise ValueError("--minutes is nan; give a number")
    announce_threads(threads)
    from post_train.grpo_changes import Changes, changed  # noqa: PLC0415  when called

    typed = locals()
    chosen = changed(_named(model, recipe, preset), Changes(**_fields(Changes, typed)))
    if nproc > 1 and "LOCAL_RANK" not in os.environ:
        raise typer.Exit(run_by_torchrun("grpo", "post_train.grpo_command", nproc))
    start_torch(threads)
    _train(chosen, _Wanted(**_fields(_Wanted, typed)), _Machine(**_fields(_Machine, typed)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    model: str
    prompts: str
    prompt_count: int
    reward: list[str] | None
    validate_by: list[str] | None
    validation_prompts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    out: Path | None
    precision: str | None
    minutes: float
    resume: bool
    compile_model: bool


def _fields(kind: type[Changes | _Wanted | _Machine], typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed under the names of a dataclass's fields."""
    return {field.name: typed[field.name] for field in fields(kind)}


def _named(model: str, recipe: str | None, preset: str) -> GrpoRecipe:
    from engines.catalog import BUILT_IN  # noqa: PLC0415  when called
    from post_train.recipes.grpo import named_recipe  # noqa: PLC0415

    return named_recipe(recipe or ("diorama-grpo" if model in BUILT_IN else "wan-grpo"), preset)


def _train(recipe: GrpoRecipe, wanted: _Wanted, machine: _Machine) -> None:
    import torch  # noqa: PLC0415  when called

    from engines.catalog import find_model  # noqa: PLC0415
    from post_train.distributed import leave_ranks, start_ranks  # noqa: PLC0415
    from post_train.grpo_rewards import check_apart, panel_of, validating_rewards  # noqa: PLC0415
    from post_train.grpo_run import Audience, GrpoOptions, GrpoRun  # noqa: PLC0415
    from post_train.model_parts import trainable_card  # noqa: PLC0415
    from post_train.policy.panel import let_go  # noqa: PLC0415
    from post_train.policy.prompts import training_prompts, validation_prompts  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    options = GrpoOptions(
        folder=machine.out or Path("runs") / f"{recipe.name}-{recipe.preset}",
        precision=chosen_precision(machine.precision or ("bf16" if cuda else "fp32")),
        minutes=machine.minutes,
        resume=machine.resume,
        compile_model=machine.compile_model,
    )
    parent = find_model(wanted.model)
    frames = trainable_card(parent).defaults.num_frames
    texts = training_prompts(wanted.prompts, count=wanted.prompt_count, num_frames=frames)
    count = recipe.validation.prompts
    panel = panel_of(wanted.reward or ["ta", "mq", "vq"])
    audience = Audience(
        panel=panel,
        validating=validating_rewards(wanted.validate_by or ["validation"]) if count else (),
        validation_prompts=validation_prompts(wanted.validation_prompts, count) if count else (),
    )
    ranks = start_ranks(torch.device("cuda" if cuda else "cpu"))
    try:
        check_apart(panel, audience.validating)
        run = GrpoRun(recipe, options, model=parent, prompts=texts, audience=audience, ranks=ranks, report=tell)
        run.report(run.effective_batch())
        run.train()
    finally:
        panel.close()
        let_go(audience.validating)
        leave_ranks(ranks)


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of `train grpo`.")],
    out: Annotated[Path, typer.Option(help="Where curves.md and curves.png go.")] = Path("runs/curves"),
    most_forwards: Annotated[float, typer.Option(help="Leave out what lies behind more rows computed.")] = math.inf,
) -> None:
    """Hold runs of `train grpo` against one another: validation gains against what training had cost."""
    from post_train.policy.curves import write_curves  # noqa: PLC0415  when called

    typer.echo(write_curves(runs, out, most_forwards=most_forwards))


def merge(
    model: Annotated[str, typer.Argument(help="What is added to: a folder, a built-in name, or a hub id.")],
    parts: Annotated[list[str], typer.Argument(help="FOLDER=SHARE of every trained model or checkpoint.")],
    out: Annotated[Path, typer.Option(help="The folder of the merged model.")],
    name: Annotated[str | None, typer.Option(help="Its name when served.", show_default="that of --out")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="Guidance of requests that ask for none.", show_default="the model's")
    ] = None,
) -> None:
    """Add up what runs have learnt: each model's difference from its parent, times a share."""
    from engines.catalog import find_model  # noqa: PLC0415  when called
    from post_train import merging  # noqa: PLC0415

    chosen = [merging.part_of(word) for word in parts]
    moved = merging.merge(find_model(model), chosen, out, name=name or out.resolve().name, guidance=guidance)
    tell(f"wrote {out}: weights moved by {moved:.2e} (root mean square)")


def main() -> None:
    """The command by itself, as torchrun calls it; an expected error is one sentence and exit code 2."""
    run_as_typed(grpo)


if __name__ == "__main__":
    main()
