"""`rushes doctor`: what this machine has for engines, which backends are installed, and how far each is proven."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.capabilities import backends_here
from engines.errors import PackageRefused


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Tell what this machine has: processor, GPU, compiler, keys, backends, and how far each backend is proven."""
    found = {**_machine(), "backends": [{**asdict(row), "state": row.state} for row in backends_here()]}
    if json_output:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    console = Console(highlight=False)
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        if name != "backends":
            facts.add_row(name.replace("_", " "), escape(str(value)))
    console.print(facts)
    table = Table(box=None, pad_edge=False)
    for name, width in (("backend", True), ("here", True), ("proof", True), ("", False)):
        table.add_column(name, no_wrap=width, overflow="fold")
    for row in backends_here():
        note = row.note if row.installed else f"{row.note}; {row.state}"
        table.add_row(row.name, row.installed or "absent", row.proof, escape(note))
    console.print()
    console.print(table)
    console.print(
        "\nrun: the project's tests run it. compiled: they build it for hardware that was not there. not run: neither."
    )


def _machine() -> dict[str, Any]:
    import torch  # noqa: PLC0415  the other commands are listed without it

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "rushes": version("rushes"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "gpus": ", ".join(gpus) or "none that torch sees",
        "compiler": shutil.which("g++") or shutil.which("clang++") or "none: AOTInductor needs one to build",
        "trusted_engine_keys": _keys(),
        "hub_kernels": _hub_kernels(),
    }


def _keys() -> str:
    from engines.signing import fingerprint, trusted_keys  # noqa: PLC0415

    try:
        keys = trusted_keys()
    except PackageRefused as error:
        return str(error)
    return ", ".join(fingerprint(key)[:16] for key in keys) or "none: no engine package will be loaded"


def _hub_kernels() -> str:
    """Hugging Face's `kernels` has the name of a folder of ours, so that diffusers finds ours in its place."""
    try:
        return f"{version('kernels')} is installed: diffusers' *_hub attention backends will not work beside rushes"
    except PackageNotFoundError:
        return "not installed, which is well"
