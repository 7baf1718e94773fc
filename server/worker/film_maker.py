"""Batches of films made by an engine inside the child, and a report on every job, exactly one, whatever goes wrong."""

from __future__ import annotations

import gc
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
    StageEvent,
    StepEvent,
)
from server.queue.request_document import VideoFormat, from_document
from server.worker.wire import BatchItem, JobCancelled, JobDone, JobFailed, Report, StageReached, StepDone

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = "out_of_memory"
_MESSAGES = {
    _OUT_OF_MEMORY: "the video needs more memory than a worker has; ask for a smaller or shorter one",
    "storage_error": "the video could not be stored; the operator must look at the server's disk",
    "engine_error": "the engine failed on this video; the operator finds the reason in the worker's log",
}


class Engine(Protocol):
    """What making films needs of an engine."""

    def generate(
        self, requests: Sequence[GenerationRequest], *, is_cancelled: IsCancelled
    ) -> Iterator[EngineEvent]: ...


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

    def make(self, items: Sequence[BatchItem]) -> None:
        """Make the films together; if that fails, each by itself, so that none suffers from another's fault."""
        pending = {item.job_id: item for item in items}
        code, message = self._attempt(pending)
        if len(items) > 1:
            for item in list(pending.values()):
                self.make([item])
            return
        if pending and code == _OUT_OF_MEMORY:
            # Once more, with the memory of the first try given back; a second failure is the job's own.
            _free_memory()
            code, message = self._attempt(pending)
        for job_id in pending:
            self._report(JobFailed(job_id=job_id, code=code, message=message))

    def _attempt(self, pending: dict[str, BatchItem]) -> tuple[str, str]:
        """Generate what is pending and take from it what was reported; why the rest is left, if any is."""
        try:
            self._generate(pending)
        except Exception as error:  # noqa: BLE001 - the worker child's wall: no engine's fault may end the process
            _log.exception("generating %s failed", ", ".join(pending))
            return _verdict(error)
        return "engine_error", _MESSAGES["engine_error"]

    def _generate(self, pending: dict[str, BatchItem]) -> None:
        requests = [_request(item) for item in pending.values()]
        for event in self._engine.generate(requests, is_cancelled=self._is_cancelled):
            match event:
                case StageEvent():
                    self._report(StageReached(job_id=event.request_id, stage=event.stage))
                case StepEvent():
                    self._report(StepDone(job_id=event.request_id, step=event.step, num_steps=event.num_steps))
                case CancelledEvent():
                    self._report(JobCancelled(job_id=event.request_id))
                    del pending[event.request_id]
                case GenerationResult():
                    self._cost.observe(event.request, event.seconds, batch_size=len(requests))
                    self._report(self._deliver(pending[event.request.request_id], event))
                    del pending[event.request.request_id]

    def _deliver(self, item: BatchItem, result: GenerationResult) -> JobDone | JobFailed:
        _, video_format = from_document(item.request)
        try:
            self._write(Path(item.path), result, video_format)
        except OSError:
            _log.exception("writing the film of %s failed", item.job_id)
            return JobFailed(job_id=item.job_id, code="storage_error", message=_MESSAGES["storage_error"])
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
