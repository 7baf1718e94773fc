"""A bare engine at the end of a pipe: `serve` is the engine's end, `BareEngine` is the benchmark's.

`bare_rushes.py` and `bare_sglang.py` are run by each side's own interpreter, so only the standard library is imported
here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_MARK = "film:"  # libraries print what they like to the same pipe


def serve(make_film: Callable[[int, int], None]) -> None:
    """For every line `STEPS SEED`, make that film and answer with the seconds; end with the input."""
    for line in sys.stdin:
        steps, seed = (int(word) for word in line.split())
        begun = time.perf_counter()
        make_film(steps, seed)
        sys.stdout.write(f"{_MARK}{time.perf_counter() - begun}\n")
        sys.stdout.flush()


class BareEngine:
    """The process that makes films without a server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, script: str, python: Path, model: Path, *, environment: Mapping[str, str], log: Path
    ) -> BareEngine:
        """Start `script`, which lies beside this file, and make one film for warmth."""
        paths = [os.fspath(_HERE.parent), os.fspath(_HERE.parents[2]), environment.get("PYTHONPATH", "")]
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *(os.fspath(word) for word in (python, _HERE / script, model, log.with_suffix(".mp4"))),
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
            )
        engine = cls(process)
        await engine.seconds(steps=1, seed=0)
        return engine

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def seconds(self, *, steps: int, seed: int) -> float:
        """Make a film; the seconds from the request to the finished file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{steps} {seed}\n".encode())
        await self._process.stdin.drain()
        while line := await self._process.stdout.readline():
            if line.startswith(_MARK.encode()):
                return float(line.removeprefix(_MARK.encode()))
        raise RuntimeError("the bare engine ended; its log says why")

    async def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
