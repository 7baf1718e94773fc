"""`rushes bench kernels`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

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
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Print the tables of bytes and floors alone; nothing is compiled.")
    ] = False,
    tune: Annotated[
        Path | None, typer.Option(help="Try the configurations worth it on the GPU that is here; write the best there.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compile every Triton kernel for every GPU, read registers and spills, and hold it to fp64 in the interpreter.

    Where there is a GPU, time each operator on it, too, beside the least that its data sheet allows. Exit code 1 when
    one does not compile, spills, errs too much or multiplies without matrix units, or the kernel that must spill is not
    caught.
    """
    from kernels.aot import TARGETS  # noqa: PLC0415  when called
    from kernels.bench import bench_kernels, faults  # noqa: PLC0415  when called
    from kernels.roofline_tables import markdown, roofline_rows  # noqa: PLC0415  when called

    if roofline:
        sys.stdout.write(json.dumps(roofline_rows()) + "\n" if json_output else markdown())
        return

    console = Console(stderr=True)
    unknown = sorted(set(target or ()) - set(TARGETS))
    if unknown:
        raise ValueError(f"target {unknown[0]!r} is unknown; use one of {', '.join(TARGETS)}")
    with console.status("control") as status:
        if tune is not None:
            _tune(tune, status.update)
            return
        measurements = _measured(status.update)
        found = bench_kernels(target or TARGETS, status.update, operator or ()) | {"measured": measurements}
    if json_output:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        Console().print(_table(found))
        for row in measurements:
            Console().print(_measured_line(row), highlight=False)
    wrong = faults(found)
    for line in wrong:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _tune(path: Path, report: Callable[[str], None]) -> None:
    from kernels.tuning import save_tuned, tune  # noqa: PLC0415  when called

    device, found = tune(report)
    save_tuned(path, device, found)
    sys.stdout.write(f"wrote the best of {len(found)} operators on {device} into {path}\n")


def _measured(report: Callable[[str], None]) -> list[dict[str, Any]]:
    import torch  # noqa: PLC0415  when called

    from kernels.measuring import measured  # noqa: PLC0415  when called

    return measured(report) if torch.cuda.is_available() else []


def _measured_line(row: dict[str, Any]) -> str:
    low, high = row["spread"]
    floor = "no floor is known" if row["fraction"] is None else f"{row['fraction']:.0%} of the roofline"
    return f"{row['operator']}, {row['shape']}: {row['milliseconds']:.3f} ms [{low:.3f}, {high:.3f}], {floor}"


def _table(found: Mapping[str, object]) -> Table:
    table = Table(title=f"kernels, compiled by Triton {found['triton']}; nothing in this table was run on a GPU")
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
