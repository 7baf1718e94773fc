"""What the commands of training share: options with their help, threads, precision and where lines are told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    import torch

    from post_train.precision import Precision

Threads = Annotated[int, typer.Option(min=1, help="CPU threads; one beside other work is often the best.")]
PrecisionName = Annotated[
    str | None, typer.Option(help="fp32 or bf16.", show_default="bf16 where the processor computes in it")
]
DeviceName = Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is a GPU")]
RunSteps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Length of the run; warm-up and decay keep their share of it.")
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        help="ta, mq, vq (our judge that rewards), novelty (of a film in its group) or a scorer's http address; "
        "=NUMBER behind it is its weight.",
        show_default="ta, mq and vq",
    ),
]
JudgeMinutes = Annotated[
    float, typer.Option(help="Stop after so many minutes, with a checkpoint and the judge as it is.")
]


def announce_threads(threads: int) -> None:
    """Says how many threads to compute with, unless the environment does; before torch is loaded, which reads it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def start_torch(threads: int) -> None:
    """Loads torch with its number of threads: when a command is called, and not to list it."""
    announce_threads(threads)
    import torch  # noqa: PLC0415  after the thread count is known

    torch.set_num_threads(threads)


def chosen_precision(name: str | None, device: str = "cpu") -> Precision:
    """The precision of that name, or the best that this processor (or an accelerator) has."""
    from post_train.precision import best_precision, named_precision  # noqa: PLC0415  it loads torch

    return named_precision(name) if name else best_precision(device)


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, or a GPU where there is one; ValueError for another name or a GPU that is not there."""
    import torch  # noqa: PLC0415  when called

    there = torch.cuda.is_available()
    if name not in {None, "cpu", "cuda"}:
        raise ValueError(f"device {name!r} is unknown; use cpu or cuda")
    if name == "cuda" and not there:
        raise ValueError("device cuda was asked for, and torch sees no GPU here; use --device cpu")
    return torch.device(name or ("cuda" if there else "cpu"))


def tell(line: str) -> None:
    """Shows a line on stderr, as it is."""
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)
