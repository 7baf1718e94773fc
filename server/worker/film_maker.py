"""Batches of films made by an engine inside the child, and a report on every job, exactly one, whatever goes wrong."""

from __future__ import annotations

import gc
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from engines.cost import CostModel
from engines.errors import InvalidRequest
from engines.types import (
    CancelledEvent,
    EngineEvent,
    GenerationRequest,
    GenerationResult,
    IsCancelled,
    MemoryRung,
    ShapeKey,
    StageEvent,
    StepEvent,
)
from server.queue.request_document import VideoFormat, from_document
from server.worker.wire import BatchItem, JobCancelled, JobDone, JobFailed, Report, StageReached, StepDone

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = "out_of_memory"
_TELL_EVERY_S = 0.05
_MAX_SHAPES = 256  # whose rung is remembered; the one not seen for longest makes room
_MESSAGES = {
    _OUT_OF_MEMORY: "the video needs more memory than a worker has; ask for a smaller or shorter one",
    "storage_error": "the video could not be stored; the operator must look at the server's disk",
    "engine_error": "the engine failed on this video; the operator finds the reason in the worker's log",
}


class Engine(Protocol):
    """What making films needs of an engine."""

    @property
    def rungs(self) -> tuple[MemoryRung, ...]: ...

    def generate(
        self, requests: Sequence[GenerationRequest], *, is_cancelled: IsCancelled, rung: MemoryRung
    ) -> Iterator[EngineEvent]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why films were not made, fit for clients, and the rung of the memory ladder to try next, if that may help."""

    code: str
    message: str
    next_rung: MemoryRung | None = None


class FilmMaker:
    """Makes films with `engine`, written by `write(path, result, format)`, and reports through `report`."""

    def __init__(
        self,
        engine: Engine,
        *,
        write: Callable[[Path, GenerationResult, VideoFormat], None],
        is_cancelled: IsCancelled,
        report: Callable[[Report], None],
    ) -> None:
        self._engine = engine
        self._write = write
        self._is_cancelled = is_cancelled
        self._report = report
        self._cost = CostModel()
        self._rungs: dict[ShapeKey, MemoryRung] = {}
        self._told_step, self._told_at = 0, 0.0

    def make(self, items: Sequence[BatchItem]) -> None:
        """Make the films together; if that fails, each by itself, so that none suffers from another's fault.

        What does not fit into memory is tried once more, alone and on the next rung of the memory ladder; films of its
        shape begin there from then on.
        """
        self._make(items, MemoryRung.WHOLE, again=True)

    def _make(self, items: Sequence[BatchItem], rung: MemoryRung, *, again: bool) -> None:
        pending = {item.job_id: item for item in items}
        failure = self._attempt(pending, rung)
        if again and failure.next_rung is not None:
            _free_memory()
            for item in list(pending.values()):
                self._make([item], failure.next_rung, again=False)
        elif len(items) > 1:
            for item in list(pending.values()):
                self._make([item], rung, again=again)
        else:
            for job_id in pending:
                self._report(JobFailed(job_id=job_id, code=failure.code, message=failure.message))

    def _attempt(self, pending: dict[str, BatchItem], rung: MemoryRung) -> _Failure:
        """Generate what is pending and take from it what was reported; why the rest is left, if any is."""
        shape = None
        try:
            requests = [_request(item) for item in pending.values()]
            shape = requests[0].shape_key
            rung = max(rung, self._rungs.get(shape, rung))
            self._generate(requests, pending, rung)
        except Exception as error:  # noqa: BLE001 - the worker child's wall: no engine's fault may end the process
            _log.exception("generating %s failed", ", ".join(pending))
            return self._failure(error, shape, rung)
        return _Failure(code="engine_error", message=_MESSAGES["engine_error"])

    def _failure(self, error: Exception, shape: ShapeKey | None, rung: MemoryRung) -> _Failure:
        code, message = _verdict(error)
        lower = [other for other in self._engine.rungs if other > rung]
        if code != _OUT_OF_MEMORY or shape is None or not lower:
            return _Failure(code=code, message=message)
        _log.warning("a film of %s does not fit into memory; the next rung is %s", shape, lower[0].name.lower())
        self._rungs.pop(shape, None)
        self._rungs[shape] = lower[0]
        while len(self._rungs) > _MAX_SHAPES:
            del self._rungs[next(iter(self._rungs))]
        return _Failure(code=code, message=message, next_rung=lower[0])

    def _generate(self, requests: Sequence[GenerationRequest], pending: dict[str, BatchItem], rung: MemoryRung) -> None:
        for event in self._engine.generate(requests, is_cancelled=self._is_cancelled, rung=rung):
            match event:
                case StageEvent():
                    self._report(StageReached(job_id=event.request_id, stage=event.stage))
                case StepEvent():
                    if self._is_told(event):
                        self._report(StepDone(job_id=event.request_id, step=event.step, num_steps=event.num_steps))
                case CancelledEvent():
                    self._report(JobCancelled(job_id=event.request_id))
                    del pending[event.request_id]
                case GenerationResult():
                    self._report(self._deliver(pending[event.request.request_id], event, len(requests)))
                    del pending[event.request.request_id]

    def _is_told(self, event: StepEvent) -> bool:
        """Whether a step is worth waking the supervisor for: of quick ones, which it would slow down, only some are.

        All jobs of a batch tell of the same steps; of the last one they always do.
        """
        now = time.monotonic()
        if event.step == event.num_steps or now - self._told_at >= _TELL_EVERY_S:
            self._told_step, self._told_at = event.step, now
        return event.step == self._told_step

    def _deliver(self, item: BatchItem, result: GenerationResult, batch_size: int) -> JobDone | JobFailed:
        _, video_format = from_document(item.request)
        began = time.monotonic()
        try:
            self._write(Path(item.path), result, video_format)
        except OSError:
            _log.exception("writing the film of %s failed", item.job_id)
            return JobFailed(job_id=item.job_id, code="storage_error", message=_MESSAGES["storage_error"])
        # Admission promises the worker's time, of which a short film's engine takes only a part.
        seconds = result.seconds | {"write": batch_size * (time.monotonic() - began)}
        self._cost.observe(result.request, seconds, batch_size=batch_size)
        return JobDone(job_id=item.job_id, facts=_facts(result), cost_model=self._cost.to_json())


def prompt_digest(prompt: str) -> str:
    """What a log may tell of a prompt: enough to recognise it, not to read it."""
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"prompt {digest} of {len(prompt)} characters"


def _request(item: BatchItem) -> GenerationRequest:
    request, _ = from_document(item.request)
    _log.info("job %s: %s, %s", item.job_id, request.shape_key, prompt_digest(request.prompt))
    return replace(request, request_id=item.job_id)


def _facts(result: GenerationResult) -> dict[str, Any]:
    spec = result.request.spec
    return {
        "seed": result.request.seed,
        "width": spec.width,
        "height": spec.height,
        "num_frames": spec.num_frames,
        "fps": spec.fps,
        "memory_rung": result.rung.name.lower(),
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        # Lets anybody see that two films are the same, bit for bit, before any encoder touched them.
        "latents_sha256": hashlib.sha256(result.latents.tobytes()).hexdigest(),
    }


def _verdict(error: Exception) -> tuple[str, str]:
    """Code and text of a failure, fit for clients: only what was written for them is passed on."""
    if isinstance(error, InvalidRequest):
        return "invalid_request", str(error)
    if _is_out_of_memory(error):
        return _OUT_OF_MEMORY, _MESSAGES[_OUT_OF_MEMORY]
    return "engine_error", _MESSAGES["engine_error"]


def _is_out_of_memory(error: Exception) -> bool:
    # By name, for torch is not imported here; its CPU allocator raises a bare RuntimeError, to be told by its text.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
