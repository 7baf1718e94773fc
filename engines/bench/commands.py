"""`rushes bench engine`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from engines.catalog import find_model


def engine(
    model: Annotated[str, typer.Option(help="Built-in name, local diffusers folder, or hub id.")] = "diorama",
    measured: Annotated[
        str, typer.Option("--engine", help="A backend, a package's folder, or best: of those built, else fused.")
    ] = "best",
    packages: Annotated[Path, typer.Option(help="Where built packages are.")] = Path("build/engines"),
    rounds: Annotated[int, typer.Option(help="Rounds of each stage, and a third as many whole films.")] = 9,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time our engine beside stock diffusers' WanPipeline on this CPU: same weights, prompt and seed, in turns.

    Ratios say something where nothing else is at work; the load before and after is told.
    """
    folder = find_model(model)
    from engines.bench.measured import find_measured  # noqa: PLC0415
    from engines.bench.side_by_side import side_by_side  # noqa: PLC0415  torch comes when the words are known to be good

    chosen = find_measured(folder, measured, packages)

    console = Console(stderr=True)
    with console.status("") as status:
        found = side_by_side(folder, chosen, rounds, status.update)
    if json_output:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _show(found, Console())


def _show(found: dict[str, Any], console: Console) -> None:
    told = f"{found['engine']} ({found['backend']}) of {found['model']}, {found['film']}, {found['threads']} threads"
    table = Table("", "ours, ms", "stock, ms", "times as long", "quartiles", "rounds", title=told)
    for name, row in {**found["stages"], "whole film": found["end_to_end"]}.items():
        table.add_row(
            name,
            f"{row['ours_ms']:.1f}",
            f"{row['stock_ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
            str(row["rounds"]),
        )
    console.print(table)
    console.print(
        f"frames apart by at most {found['frames_apart']:.4f} of full scale; "
        f"load {found['load'][0]:.1f} before and {found['load'][1]:.1f} after"
    )
