"""A training command on several processes: it starts itself by torchrun, which then calls its module by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import typer


def run_by_torchrun(command: str, module: str, nproc: int) -> int:
    """Starts this very command line again in `nproc` processes, and gives their exit code."""
    typed = sys.argv[sys.argv.index(command) + 1 :] if command in sys.argv else sys.argv[1:]
    return subprocess.run(torchrun_words(nproc, typed, module), check=False).returncode  # noqa: S603


def torchrun_words(nproc: int, typed: list[str], module: str) -> list[str]:
    """The command that runs what was typed behind a command's name in `nproc` processes, by its `module`.

    torchrun looks through its script's words for its own, and would take --nproc for a short form of one.
    """
    words = [w for at, w in enumerate(typed) if not w.startswith("--nproc") and typed[max(0, at - 1)] != "--nproc"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return [*torchrun, "-m", module, *words]


def run_as_typed(command: Callable[..., Any]) -> None:
    """Runs a command with this process's words; an expected error is one sentence and exit code 2."""
    from engines.errors import EngineError  # noqa: PLC0415  it loads much, and a listing needs none of it

    try:
        typer.run(command)
    except (ValueError, OSError, EngineError) as error:
        sys.stderr.write(f"rushes: {' '.join(str(error).split())}\n")
        sys.exit(2)
