"""The command line as it is typed, within the process of the tests: a mistake costs no second start of torch."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from server.cli import main


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_rushes(*arguments: str) -> Done:
    """Runs `rushes` with `arguments`; anything but an exit (a trace, to a user) is raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _typed(arguments):
        try:
            main()
        except SystemExit as left:
            code = left.code
    return Done(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _typed(arguments: tuple[str, ...]) -> Iterator[None]:
    argv, columns = sys.argv, os.environ.get("COLUMNS")
    sys.argv, os.environ["COLUMNS"] = ["rushes", *arguments], "200"
    try:
        yield
    finally:
        sys.argv = argv
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
