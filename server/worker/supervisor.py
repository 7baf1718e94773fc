"""The worker's supervisor: leases jobs, has its child make them, and outlives whatever happens to the child."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from server.artifacts.filesystem import FilesystemArtifacts, StorageError
from server.artifacts.sweeper import sweep
from server.queue.client import JobQueue
from server.queue.types import Lease, ReleaseReason, WorkerNotice, WorkerState
from server.worker.batch_run import BatchRun, ChildLostError, Pace
from server.worker.child import Child
from server.worker.stall import StallClock
from server.worker.wire import LoadFailed, Ready, WireError

_log = logging.getLogger(__name__)
_ANNOUNCE_S = 2.0
_REDIS_PAUSE_S = 0.5
_STORAGE_PAUSE_S = 1.0
_SWEEP_S = 600.0
_LONGEST_RESTART_PAUSE_S = 30.0


class EngineLoadError(RuntimeError):
    """The engine cannot be loaded, now or ever; the message is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Who a worker is and how patient it is, in seconds.

    `stall_floor_s`: the least silence between steps that may count as a hang; `patience_s`: the same for all else that
    a child does with a job; `load_s`: how long an engine may load; `drain_s`: how long a drain waits for the running
    batch before it is given back.
    """

    worker_id: str
    model: str
    max_batch: int = 1
    pace: Pace = field(default_factory=Pace)
    stall_floor_s: float = 30.0
    patience_s: float = 600.0
    load_s: float = 1800.0
    drain_s: float = 8.0


class Supervisor:
    """One worker: `run` until `drain`; it never touches the engine itself."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        queue: JobQueue,
        artifacts: FilesystemArtifacts,
        child_command: Sequence[str],
    ) -> None:
        self._config = config
        self._queue = queue
        self._artifacts = artifacts
        self._child_command = child_command
        self._draining = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._state = WorkerState.LOADING
        self._cost_model: dict[str, Any] = {}
        self._notice_changed = asyncio.Event()
        self._seen_arrival = "0-0"

    def drain(self) -> None:
        """Lease no more and end after the running batch; called again, give the batch back at once."""
        if self._draining.is_set():
            self._hurrying.set()
        self._draining.set()
        self._become(WorkerState.DRAINING)

    async def run(self) -> None:
        """Work until drained; EngineLoadError when the engine will never load."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._retire)
            for duty in (self._announce(), self._sweep()):
                task = asyncio.create_task(duty)
                task.add_done_callback(_tell_failure)
                stack.push_async_callback(_stop, task)
            await self._install()
            crashes = 0
            while not self._draining.is_set():
                if await self._work_with_a_child():
                    crashes = 0
                    continue
                crashes += 1
                await self._pause(min(2.0**crashes, _LONGEST_RESTART_PAUSE_S))

    async def _work_with_a_child(self) -> bool:
        """Start a child and work with it until drained or it is lost; False when it did not get so far."""
        try:
            child = await Child.start(self._child_command)
        except OSError as error:
            # No memory, no process or no descriptor to be had just now.
            _log.warning("the engine process cannot be started: %s", error)
            return False
        try:
            loaded = await self._load(child)
            if loaded:
                await self._work(child)
        finally:
            code = await child.kill()
        _log.info("engine process %d ended with %d", child.pid, code)
        return loaded

    async def _install(self) -> None:
        while not self._draining.is_set():
            try:
                return await self._queue.install()
            except RedisError as error:
                _log.warning("the queue's functions cannot be installed yet: %s", error)
                await self._pause(_REDIS_PAUSE_S)
        return None

    async def _load(self, child: Child) -> bool:
        self._become(WorkerState.LOADING)
        try:
            report = await self._unless_draining(_in_time(child.receive(), self._config.load_s))
        except TimeoutError:
            _log.error("the engine did not load within %.0f s", self._config.load_s)
            return False
        except WireError as error:
            _log.error("the engine process cannot be understood: %s", error)
            return False
        if isinstance(report, LoadFailed):
            raise EngineLoadError(f"model {self._config.model!r} cannot be loaded: {report.message}")
        if not isinstance(report, Ready):
            return False
        self._become(WorkerState.READY)
        _log.info("engine process %d is ready", child.pid)
        return True

    async def _work(self, child: Child) -> None:
        """Lease and run until drained or the child is lost."""
        while child.alive and not self._draining.is_set():
            try:
                leases = await self._queue.lease(self._config.worker_id, max_batch=self._config.max_batch)
                if not leases:
                    self._seen_arrival = await self._queue.wait_for_arrival(self._seen_arrival)
                    continue
            except RedisError as error:
                _log.warning("no work can be leased: %s", error)
                await self._pause(_REDIS_PAUSE_S)
                continue
            if not await self._run_batch(child, leases):
                return

    async def _run_batch(self, child: Child, leases: list[Lease]) -> bool:
        """Whether the child can be given another batch."""
        for lease in leases:
            _log.info("job %s attempt %d leased", lease.job_id, lease.attempt)
        batch = BatchRun(
            leases,
            child=child,
            queue=self._queue,
            artifacts=self._artifacts,
            worker_id=self._config.worker_id,
            stall=StallClock(floor_s=self._config.stall_floor_s, patience_s=self._config.patience_s),
            pace=self._config.pace,
        )
        running = asyncio.create_task(batch.run())
        try:
            await self._until_done_or_drained(running)
            if batch.cost_model:
                self._cost_model = batch.cost_model
                self._notice_changed.set()
            if running.done():
                await running
                if batch.storage_refused:
                    await self._until_storage()
                return True
            reason = ReleaseReason.DRAIN
        except ChildLostError as error:
            _log.warning("%s; its jobs are given back", error)
            reason = error.reason
        finally:
            await _stop(running)
        # Killed before the jobs are given back, so that no two engines ever work on one job when it can be helped.
        await child.kill()
        await batch.release(reason)
        return False

    async def _until_storage(self) -> None:
        """Take no job until films can be stored: on a full disk a queue would be made for nothing, job by job."""
        while not self._draining.is_set():
            try:
                await asyncio.to_thread(self._artifacts.try_out)
            except StorageError as error:
                if self._state is not WorkerState.BLOCKED:
                    _log.error("no job is taken until films can be stored: %s", error)
                    self._become(WorkerState.BLOCKED)
                await self._pause(_STORAGE_PAUSE_S)
            else:
                return self._become(WorkerState.READY)
        return None

    async def _until_done_or_drained(self, running: asyncio.Task[None]) -> None:
        await _first(running, self._draining.wait())
        if not running.done():
            _log.info("draining: the running batch has %.1f s", self._config.drain_s)
            await _first(running, self._hurrying.wait(), timeout_s=self._config.drain_s)

    async def _announce(self) -> None:
        while True:
            self._notice_changed.clear()
            notice = WorkerNotice(
                worker_id=self._config.worker_id,
                model=self._config.model,
                state=self._state,
                max_batch=self._config.max_batch,
                cost_model=self._cost_model,
            )
            try:
                await self._queue.announce_worker(notice)
            except RedisError as error:
                _log.warning("the worker cannot announce itself: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANNOUNCE_S):
                    await self._notice_changed.wait()

    async def _retire(self) -> None:
        with contextlib.suppress(RedisError):
            await self._queue.retire_worker(self._config.worker_id)

    async def _sweep(self) -> None:
        while True:
            try:
                await sweep(self._artifacts, self._queue)
            except (RedisError, StorageError, OSError) as error:
                _log.warning("artifacts could not be swept: %s", error)
            await asyncio.sleep(_SWEEP_S)

    def _become(self, state: WorkerState) -> None:
        self._state = WorkerState.DRAINING if self._draining.is_set() else state
        self._notice_changed.set()

    async def _pause(self, seconds: float) -> None:
        await _first(asyncio.create_task(asyncio.sleep(seconds)), self._draining.wait())

    async def _unless_draining(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        """What the coroutine gives, or None when the drain comes first."""
        task = asyncio.create_task(awaitable)
        await _first(task, self._draining.wait())
        if task.done():
            return await task
        await _stop(task)
        return None


async def _first(task: asyncio.Task[Any], other: Coroutine[Any, Any, Any], *, timeout_s: float | None = None) -> None:
    """Wait until the task or the other ends; only the other is given up."""
    rival = asyncio.create_task(other)
    await asyncio.wait({task, rival}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    await _stop(rival)


async def _in_time(awaitable: Coroutine[Any, Any, Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


def _tell_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("a duty of the worker ended: %r", error, exc_info=error)


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it as forgotten
