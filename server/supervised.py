"""One child process that is started again, ever more slowly, whenever it dies before it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.tied_process import tied

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_HEALTHY_AFTER_S = 30.0  # a child that lived this long begins again with the first pause


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run; `stdout` is a descriptor or None for the parent's, `pass_fds` stay open in the child."""

    name: str
    argv: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGKILL
    pass_fds: tuple[int, ...] = ()
    output: int | None = None


class Supervised:
    """Keeps one child of `spec` alive from `start` to `stop`; `on_death(returncode, deaths)` is told of each end.

    `deaths` counts those in a row, each soon after its start.
    """

    def __init__(self, spec: ChildSpec, on_death: Callable[[int, int], None] | None = None) -> None:
        self.spec = spec
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the child and from now on keep it alive; OSError when it cannot be started at all."""
        self._process = await self._spawn()
        self._task = asyncio.create_task(self._keep_alive(self._process), name=f"keep {self.spec.name} alive")

    def signal(self, number: signal.Signals) -> None:
        """Send the child a signal, if it runs."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, *, grace_s: float) -> None:
        """Ask the child to end, wait `grace_s` seconds, then kill it; it is not started again."""
        self._stopping = True
        self.signal(signal.SIGTERM)
        process = self._process
        if process is not None and process.returncode is None:
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                _log.warning("%s did not end within %.0f s and is killed", self.spec.name, grace_s)
                self.signal(signal.SIGKILL)
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_alive(self, process: asyncio.subprocess.Process) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            returncode = await process.wait()
            if self._stopping:
                return
            deaths = 1 if time.monotonic() - began > _HEALTHY_AFTER_S else deaths + 1
            _log.warning("%s ended with %s; starting it again", self.spec.name, _describe(returncode))
            if self._on_death:
                self._on_death(returncode, deaths)
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** (deaths - 1), _LONGEST_PAUSE_S))
            self._process = process = await self._spawn_at_last()

    async def _spawn_at_last(self) -> asyncio.subprocess.Process:
        while True:
            try:
                return await self._spawn()
            except OSError as error:
                # No memory or no process to be had just now.
                _log.warning("%s cannot be started: %s", self.spec.name, error)
                await asyncio.sleep(_LONGEST_PAUSE_S)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *tied(list(self.spec.argv), death_signal=self.spec.death_signal),
            env=os.environ | self.spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.spec.output,
            stderr=self.spec.output,
            pass_fds=self.spec.pass_fds,
            # A session of its own: Ctrl-C in a terminal reaches the parent alone, which stops its children in order.
            start_new_session=True,
        )


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
