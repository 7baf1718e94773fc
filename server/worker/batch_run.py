"""One leased batch on its way through the child: leases kept, progress told, each job settled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from redis.exceptions import RedisError

from engines.video import file_suffix
from server.artifacts.filesystem import FilesystemArtifacts, StorageError
from server.queue.client import JobQueue
from server.queue.types import Lease, Outcome, Progress, ReleaseReason, Renewal, State
from server.worker.child import Child
from server.worker.stall import StallClock
from server.worker.wire import (
    BatchItem,
    CancelJob,
    JobCancelled,
    JobDone,
    JobFailed,
    Report,
    RunBatch,
    StageReached,
    StepDone,
    WireError,
)

_log = logging.getLogger(__name__)
_REDIS_PAUSE_S = 0.5
_T = TypeVar("_T")


class ChildLostError(RuntimeError):
    """The child crashed or hangs; `reason` says which."""

    def __init__(self, reason: ReleaseReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a lease is renewed, and at most how often progress is told, in seconds."""

    renew_s: float = 1.5
    progress_s: float = 0.25


class BatchRun:
    """A batch from lease to outcomes.

    `held` are the jobs whose leases are ours and that have no outcome yet; `cost_model` is what the engine last told of
    its speed, empty before it did; `storage_refused`: a film could not be stored, and its job was given back.
    """

    def __init__(
        self,
        leases: list[Lease],
        *,
        child: Child,
        queue: JobQueue,
        artifacts: FilesystemArtifacts,
        worker_id: str,
        stall: StallClock,
        pace: Pace,
    ) -> None:
        self.held = {lease.job_id: lease for lease in leases}
        self.cost_model: dict[str, Any] = {}
        self.storage_refused = False
        self._leases = dict(self.held)
        self._progress: dict[str, Progress] = {}
        self._child = child
        self._queue = queue
        self._artifacts = artifacts
        self._worker_id = worker_id
        self._stall = stall
        self._pace = pace
        self._cancelling: set[str] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Settle every job; ChildLostError when the child did not live to do its part (its jobs are still held)."""
        duties = [asyncio.create_task(self._keep_leases()), asyncio.create_task(self._hear_cancels())]
        try:
            items = [asdict(item) for lease in self._leases.values() if (item := await self._prepare(lease))]
            if items:
                await self._child.send(RunBatch(items=items))
                await self._listen({item["job_id"] for item in items})
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.wait(duties)
            for duty in duties:
                if not duty.cancelled() and (error := duty.exception()):
                    raise error

    async def release(self, reason: ReleaseReason) -> None:
        """Give back every job that is still held; what cannot be given back is found when its lease ends."""
        for lease in list(self.held.values()):
            await self._release(lease, reason)

    async def _release(self, lease: Lease, reason: ReleaseReason) -> None:
        del self.held[lease.job_id]
        try:
            await self._queue.release(lease.job_id, lease.attempt, reason, worker_id=self._worker_id)
            _log.info("job %s attempt %d released: %s", lease.job_id, lease.attempt, reason)
        except RedisError as error:
            _log.warning("job %s could not be released (%s); its lease will end", lease.job_id, error)
        await self._discard(lease)

    async def _prepare(self, lease: Lease) -> BatchItem | None:
        try:
            path = await asyncio.to_thread(self._artifacts.part_path, lease.job_id, lease.attempt)
        except StorageError as error:
            await self._storage_refused(lease, str(error))
            return None
        return BatchItem(job_id=lease.job_id, request=lease.request, path=str(path))

    async def _listen(self, awaited: set[str]) -> None:
        while awaited:
            report = await self._next_report()
            match report:
                case StageReached():
                    self._stall.stage()
                    self._note(report.job_id, stage=report.stage)
                case StepDone():
                    self._stall.step(report.step, time.monotonic())
                    self._note(report.job_id, step=report.step, num_steps=report.num_steps)
                case JobDone() | JobCancelled() | JobFailed():
                    if report.job_id not in awaited or self._is_unasked(report):
                        raise ChildLostError(
                            ReleaseReason.CRASH, f"the child reports on {report.job_id!r:.80}, not its job"
                        )
                    awaited.discard(report.job_id)
                    await self._settle(self._leases[report.job_id], report)
                case _:
                    raise ChildLostError(ReleaseReason.CRASH, f"the child sent a {type(report).__name__} out of turn")

    def _is_unasked(self, report: Report) -> bool:
        return isinstance(report, JobCancelled) and report.job_id not in self._cancelling

    async def _next_report(self) -> Report:
        try:
            async with asyncio.timeout(self._stall.limit_s):
                report = await self._child.receive()
        except TimeoutError:
            message = f"the child has been silent for {self._stall.limit_s:.1f} s"
            raise ChildLostError(ReleaseReason.STALL, message) from None
        except WireError as error:
            raise ChildLostError(ReleaseReason.CRASH, str(error)) from error
        if report is None:
            raise ChildLostError(ReleaseReason.CRASH, "the child has ended")
        return report

    def _note(self, job_id: str, **changes: str | int) -> None:
        old = self._progress.get(job_id) or Progress(stage="encode", step=0, num_steps=self._steps_of(job_id))
        self._progress[job_id] = replace(old, **changes)
        self._news.set()

    def _steps_of(self, job_id: str) -> int:
        lease = self._leases.get(job_id)
        return lease.request["generation"]["num_inference_steps"] if lease else 0

    async def _keep_leases(self) -> None:
        """Renew at each news, though not too often, and in any case before the lease runs low."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.renew_s):
                    await self._news.wait()
            self._news.clear()
            for lease in list(self.held.values()):
                try:
                    await self._renew(lease)
                except RedisError as error:
                    _log.warning("lease of job %s could not be renewed, trying on: %s", lease.job_id, error)
            await asyncio.sleep(self._pace.progress_s)

    async def _hear_cancels(self) -> None:
        """Bring a cancellation to the child at once; the next renewal would bring it too, but a step or more later."""
        after = "0-0"
        while True:
            try:
                after, cancelled = await self._queue.wait_for_cancels(after)
                for job_id in cancelled:
                    if (lease := self.held.get(job_id)) and job_id not in self._cancelling:
                        await self._renew(lease)
            except RedisError:
                await asyncio.sleep(_REDIS_PAUSE_S)

    async def _renew(self, lease: Lease) -> None:
        answer = await self._queue.renew(lease.job_id, lease.attempt, self._progress.get(lease.job_id))
        if answer is Renewal.LOST and self.held.pop(lease.job_id, None):
            _log.warning("job %s attempt %d is no longer ours", lease.job_id, lease.attempt)
        if answer is not Renewal.OK:
            self._cancelling.add(lease.job_id)
            await self._child.send(CancelJob(job_id=lease.job_id))

    async def _settle(self, lease: Lease, report: JobDone | JobCancelled | JobFailed) -> None:
        match report:
            case JobDone():
                self.cost_model = report.cost_model
                await self._publish(lease, report)
            case JobCancelled():
                await self._end(lease, Outcome(state=State.CANCELLED))
            case JobFailed(code="storage_error"):
                await self._storage_refused(lease, report.message)
            case JobFailed():
                outcome = Outcome(state=State.FAILED, error_code=report.code, error_message=report.message)
                await self._end(lease, outcome)

    async def _end(self, lease: Lease, outcome: Outcome) -> None:
        if lease.job_id in self.held:
            await self._finish(lease, outcome)
        await self._discard(lease)

    async def _publish(self, lease: Lease, report: JobDone) -> None:
        if lease.job_id not in self.held:
            return await self._discard(lease)
        extension = file_suffix(lease.request["format"]).removeprefix(".")
        try:
            name = await asyncio.to_thread(self._artifacts.publish, lease.job_id, lease.attempt, extension)
        except StorageError as error:
            return await self._storage_refused(lease, str(error))
        accepted = await self._finish(lease, Outcome(state=State.SUCCEEDED, artifact=name, facts=report.facts))
        if not accepted:
            # Another attempt's outcome counts, under another name; this file is nobody's.
            await self._remove(name)
        return None

    async def _storage_refused(self, lease: Lease, why: str) -> None:
        """Give the job back: a full disk is no fault of its, and another worker's may have room."""
        _log.error("job %s attempt %d cannot be stored: %s", lease.job_id, lease.attempt, why)
        self.storage_refused = True
        if lease.job_id in self.held:
            await self._release(lease, ReleaseReason.STORAGE)
        else:
            await self._discard(lease)

    async def _finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Bring the outcome to the queue, however long Redis is away; False when it was refused as stale."""
        accepted = await _persist(lambda: self._queue.finish(lease.job_id, lease.attempt, outcome))
        self.held.pop(lease.job_id, None)
        told = outcome.state if accepted else f"{outcome.state}, refused as stale"
        _log.info("job %s attempt %d: %s %s", lease.job_id, lease.attempt, told, outcome.error_code or "")
        return accepted

    async def _discard(self, lease: Lease) -> None:
        await self._remove(f"{lease.job_id}/{lease.attempt}.part")

    async def _remove(self, name: str) -> None:
        # What cannot be removed now is swept later.
        with contextlib.suppress(StorageError):
            await asyncio.to_thread(self._artifacts.remove, name)


async def _persist(action: Callable[[], Awaitable[_T]]) -> _T:
    while True:
        try:
            return await action()
        except RedisError as error:
            _log.warning("an outcome waits for Redis: %s", error)
            await asyncio.sleep(_REDIS_PAUSE_S)
