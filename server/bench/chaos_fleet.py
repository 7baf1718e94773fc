"""The bench's workers: real supervisors with their children, started, killed, frozen and thawed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.bench.chaos_plan import BenchError
from server.tied_process import tied

_DRAIN_S = 60.0
_SECOND_SIGNAL_S = 0.1


@dataclass(slots=True, kw_only=True)
class BenchWorker:
    """One supervisor and whichever child it has; `frozen` while it is stopped, `ended` once we have ended it."""

    worker_id: str
    process: asyncio.subprocess.Process
    log: Path
    frozen: bool = False
    ended: bool = False

    @property
    def child_pid(self) -> int | None:
        """The engine's process, or None while there is none."""
        pid = self.process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
            return int(children[0]) if children else None
        return None

    def kill_child(self) -> bool:
        """kill -9 of the engine's process alone; False when there was none."""
        pid = self.child_pid
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def kill_host(self) -> None:
        """kill -9 of supervisor and child, as when a host is lost."""
        child = self.child_pid
        self.ended = True
        # The supervisor first, or it would tell of its child's death.
        self._send(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            if child is not None:
                os.kill(child, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the supervisor; its child goes on, so that an outcome waits for it when it wakes."""
        self.frozen = True
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the supervisor go on."""
        self.frozen = False
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Fleet:
    """All workers of one run, those included that were killed."""

    def __init__(self, command: Sequence[str], *, redis_url: str, logs: Path) -> None:
        """`command` starts a worker; it is given its name with --worker-id."""
        self._command = [sys.executable, *command]
        self._redis_url = redis_url
        self._logs = logs
        self.workers: dict[str, BenchWorker] = {}

    @property
    def living(self) -> list[BenchWorker]:
        """Those that were not ended by us."""
        return [worker for worker in self.workers.values() if not worker.ended]

    async def start(self) -> BenchWorker:
        """Start one worker more."""
        worker_id = f"worker-{len(self.workers) + 1}"
        log = self._logs / f"{worker_id}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *tied([*self._command, "--worker-id", worker_id], death_signal=signal.SIGKILL),
                env=os.environ | {"REDIS_URL": self._redis_url, "OMP_NUM_THREADS": "1", "RUSHES_THREADS": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stderr=file,
                # Ctrl-C in a terminal is for the bench to act on.
                start_new_session=True,
            )
        worker = self.workers[worker_id] = BenchWorker(worker_id=worker_id, process=process, log=log)
        return worker

    def require_alive(self) -> None:
        """BenchError when a worker has ended by itself."""
        for worker in self.living:
            if worker.process.returncode is not None:
                raise BenchError(
                    f"{worker.worker_id} ended by itself with {worker.process.returncode}: {_last_line(worker.log)}"
                )

    async def drain(self) -> None:
        """End the living with SIGTERM, after what they are at; BenchError when one does not end well."""
        self.require_alive()
        await asyncio.gather(*(self.end(worker) for worker in self.living))

    async def end(self, worker: BenchWorker, *, twice: bool = False) -> None:
        """End one worker with SIGTERM, or with two of them, after which it gives its jobs back at once."""
        worker.ended = True
        worker.process.terminate()
        if twice:
            await asyncio.sleep(_SECOND_SIGNAL_S)
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        try:
            async with asyncio.timeout(_DRAIN_S):
                code = await worker.process.wait()
        except TimeoutError:
            raise BenchError(f"{worker.worker_id} did not drain within {_DRAIN_S:.0f} s") from None
        if code != 0:
            raise BenchError(f"{worker.worker_id} drained with exit code {code}: {_last_line(worker.log)}")

    async def close(self) -> None:
        """Kill whatever still runs."""
        for worker in self.workers.values():
            if worker.process.returncode is None:
                worker.kill_host()
        await asyncio.gather(*(worker.process.wait() for worker in self.workers.values()))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
