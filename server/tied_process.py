"""Run a program that is told when its parent dies: `tied_process.py SIGNAL PARENT_PID PROGRAM ARGUMENT...`.

A program of its own, not a `preexec_fn`, because Python code between fork and exec is unsafe beside threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tied(argv: list[str], *, death_signal: signal.Signals) -> list[str]:
    """The command line that runs `argv` so that it gets `death_signal` when the calling process dies (Linux)."""
    # -I -S: nothing of the environment or of site-packages is needed, and start-up takes a few milliseconds.
    return [sys.executable, "-I", "-S", __file__, str(int(death_signal)), str(os.getpid()), *argv]


def main() -> None:
    """Ask the kernel for the signal, make sure that the parent still lives, become the program."""
    death_signal, parent, *argv = sys.argv[1:]
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death_signal)) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent died before its child began")
    os.execv(argv[0], argv)  # noqa: S606 - becoming that program is the purpose; the caller made the arguments


if __name__ == "__main__":
    main()
