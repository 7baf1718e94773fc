"""Processes of a server under test: started with a log, found by their command line, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

_STOP_S = 45.0


class Launched:
    """A server's first process, in a session of its own, so that nothing of it outlives the benchmark."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path) -> Launched:
        """Start `argv` with `environment` on top of ours; what it says is appended to `log`."""
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=cwd,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def stop(self) -> None:
        """SIGTERM, as both servers document it; what is left after 45 s is killed."""
        family = [self.pid, *descendants(self.pid)]
        if self.alive:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await self._process.wait()
        for pid in family:
            if pid != self.pid or self.alive:
                kill(pid)
        await self._process.wait()


def kill(pid: int) -> None:
    """SIGKILL; a process that has ended meanwhile is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pin(pid: int, core: int) -> None:
    """Keep every thread that `pid` has now, and what they start, on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end while we look.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


def descendants(pid: int) -> list[int]:
    """Every process below `pid` (Linux)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # A process may end while we look.
            with contextlib.suppress(OSError):
                after_name = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents.setdefault(int(after_name[1]), []).append(int(entry.name))
    found, unseen = [], [pid]
    while unseen:
        children = parents.get(unseen.pop(), [])
        found += children
        unseen += children
    return found


def find_below(pid: int, words: str) -> int:
    """The one process below `pid` whose command line holds `words`."""
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # The small program that ties a process to its parent has the same words for a moment.
            if words in line and "tied_process" not in line:
                return child
    raise LookupError(f"no process below {pid} has {words!r} in its command line")
