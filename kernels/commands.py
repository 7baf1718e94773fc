"""`rushes bench kernels`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def kernels(
    target: Annotated[
        list[str] | None,
        typer.Option(help="A GPU to compile for, sm_90 or gfx942; may be repeated.", show_default="all"),
    ] = None,
    operator: Annotated[
        list[str] | None, typer.Option(help="An operator to look at; may be repeated.", show_default="all")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compile every Triton kernel for every GPU, read registers and spills, and hold it to fp64 in the interpreter.

    Exit code 1 when one does not compile or spills, or the kernel that must spill is not caught.
    """
    from kernels.aot import TARGETS  # noqa: PLC0415  when called
    from kernels.bench import bench_kernels, faults  # noqa: PLC0415  when called

    console = Console(stderr=True)
    unknown = sorted(set(target or ()) - set(TARGETS))
    if unknown:
        raise ValueError(f"target {unknown[0]!r} is unknown; use one of {', '.join(TARGETS)}")
    with console.status("control") as status:
        found = bench_kernels(target or TARGETS, status.update, operator or ())
    if json_output:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        Console().print(_table(found))
    wrong = faults(found)
    for line in wrong:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _table(found: dict[str, object]) -> Table:
    table = Table(title=f"kernels, compiled by Triton {found['triton']}; nothing here was run on a GPU")
    columns = (
        "operator",
        "variant",
        "target",
        "registers",
        "stack",
        "local",
        "shared",
        "matrix_instruction",
        "max_error",
    )
    for column in columns:
        table.add_column(column)
    rows = found["kernels"]
    assert isinstance(rows, list)
    for row in rows:
        table.add_row(*(f"{row[c]:.1e}" if isinstance(row[c], float) else str(row[c] or "-") for c in columns))
    return table
