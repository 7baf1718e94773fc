"""The film maker inside the child: exactly one report on each job, whatever the engine does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import EncodingFailed, InvalidRequest
from engines.types import EngineEvent, GenerationRequest, GenerationResult, IsCancelled, MemoryRung
from server.worker.film_maker import FilmMaker
from server.worker.wire import BatchItem, JobDone, JobFailed, Report
from tests.server.worker.harness import film_job

Behaviour = Callable[[Sequence[GenerationRequest]], Iterator[EngineEvent]]


class ScriptedEngine:
    """An engine that does what a function says, and remembers the batches it was given and on which rungs."""

    rungs = tuple(MemoryRung)

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.batches: list[list[str]] = []
        self.tried: list[MemoryRung] = []

    def generate(
        self, requests: Sequence[GenerationRequest], *, is_cancelled: IsCancelled, rung: MemoryRung
    ) -> Iterator[EngineEvent]:
        assert not is_cancelled(requests[0].request_id)
        self.batches.append([request.request_id for request in requests])
        self.tried.append(rung)
        return self._behaviour(requests)


def _result(request: GenerationRequest) -> GenerationResult:
    return GenerationResult(request=request, frames=np.zeros((1, 2, 2, 3), np.uint8), latents=np.zeros(1, np.float32))


def _make(behaviour: Behaviour, names: str, write: Any = lambda *_: None) -> tuple[list[Report], ScriptedEngine]:
    reports: list[Report] = []
    engine = ScriptedEngine(behaviour)
    maker = FilmMaker(engine, write=write, is_cancelled=lambda _: False, report=reports.append)
    maker.make([BatchItem(job_id=name, request=film_job(name).request, path=f"/{name}") for name in names])
    return reports, engine


def _verdicts(reports: list[Report]) -> dict[str, str]:
    """What was said of each job, each exactly once."""
    told = [report for report in reports if isinstance(report, JobDone | JobFailed)]
    assert max(Counter(report.job_id for report in told).values()) == 1
    return {report.job_id: report.code if isinstance(report, JobFailed) else "done" for report in told}


def test_a_batch_that_fails_is_made_one_by_one() -> None:
    """A request that breaks its batch fails alone; its mates are made."""

    def behaviour(requests: Sequence[GenerationRequest]) -> Iterator[EngineEvent]:
        if any(request.request_id == "b" for request in requests):
            raise InvalidRequest("seed", "seed is bad")
        yield from map(_result, requests)

    reports, engine = _make(behaviour, "abc")
    assert _verdicts(reports) == {"a": "done", "b": "invalid_request", "c": "done"}
    assert engine.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_what_was_delivered_is_not_made_again() -> None:
    """When a batch fails after its first film, only the others are tried again."""

    def behaviour(requests: Sequence[GenerationRequest]) -> Iterator[EngineEvent]:
        yield _result(requests[0])
        if len(requests) > 1:
            raise RuntimeError("half way")

    reports, engine = _make(behaviour, "abc")
    assert _verdicts(reports) == {"a": "done", "b": "done", "c": "done"}
    assert engine.batches == [["a", "b", "c"], ["b"], ["c"]]


def _no_memory(_: Sequence[GenerationRequest]) -> Iterator[EngineEvent]:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    yield  # makes this an iterator, as an engine's answer is


def test_what_does_not_fit_is_tried_once_more_alone_and_on_the_next_rung() -> None:
    """A job that never fits is given up after one more try by itself; other jobs of its shape begin lower."""
    reports, engine = _make(_no_memory, "ab")
    assert _verdicts(reports) == {"a": "out_of_memory", "b": "out_of_memory"}
    assert engine.batches == [["a", "b"], ["a"], ["b"]]
    assert engine.tried == [MemoryRung.WHOLE, MemoryRung.TILED, MemoryRung.OFFLOADED]


def test_a_shape_that_did_not_fit_begins_where_it_fits() -> None:
    """After one job was saved by the next rung, the next of its shape is made there at once; another shape is not."""

    def behaviour(requests: Sequence[GenerationRequest]) -> Iterator[EngineEvent]:
        if engine.tried[-1] is MemoryRung.WHOLE and requests[0].spec.width > 32:
            raise MemoryError
        yield from map(_result, requests)

    reports: list[Report] = []
    engine = ScriptedEngine(behaviour)
    maker = FilmMaker(engine, write=lambda *_: None, is_cancelled=lambda _: False, report=reports.append)
    for name, size in (("a", 64), ("b", 64), ("c", 32)):
        maker.make([BatchItem(job_id=name, request=film_job(name, size=size).request, path=f"/{name}")])
    assert _verdicts(reports) == {"a": "done", "b": "done", "c": "done"}
    assert engine.tried == [MemoryRung.WHOLE, MemoryRung.TILED, MemoryRung.TILED, MemoryRung.WHOLE]


def test_torchs_own_out_of_memory_is_told_by_its_name() -> None:
    """The error of torch's GPU allocator counts as out of memory, though torch is not imported to compare it."""
    kind = type("OutOfMemoryError", (RuntimeError,), {})

    def behaviour(requests: Sequence[GenerationRequest]) -> Iterator[EngineEvent]:
        raise kind("CUDA out of memory")
        yield

    assert _verdicts(_make(behaviour, "a")[0]) == {"a": "out_of_memory"}


def test_an_engine_that_forgets_a_job_fails_it() -> None:
    """A job that the engine ends without a word on is still reported."""
    reports, _ = _make(lambda _: iter(()), "a")
    assert _verdicts(reports) == {"a": "engine_error"}


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left"), "storage_error"), (EncodingFailed("x264"), "engine_error")]
)
def test_a_film_that_cannot_be_written_fails_alone(error: Exception, code: str) -> None:
    """A full disk is told as such, a broken encoder as the engine's fault, and neither takes the mates along."""

    def write(path: Path, *_: Any) -> None:
        if path.name == "b":
            raise error

    reports, _ = _make(lambda requests: map(_result, requests), "abc", write)
    assert _verdicts(reports) == {"a": "done", "b": code, "c": "done"}


def test_a_document_that_is_no_request_fails_alone() -> None:
    """What no gateway of this version could have written fails, without its mates and without a crash."""
    reports: list[Report] = []
    engine = ScriptedEngine(lambda requests: map(_result, requests))
    maker = FilmMaker(engine, write=lambda *_: None, is_cancelled=lambda _: False, report=reports.append)
    good = BatchItem(job_id="a", request=film_job("a").request, path="/a")
    maker.make([good, BatchItem(job_id="b", request={"format": "mp4"}, path="/b")])
    assert _verdicts(reports) == {"a": "done", "b": "engine_error"}


def test_jobs_are_known_by_their_leases() -> None:
    """The id inside a document is not trusted: reports are about the job that was leased."""
    reports: list[Report] = []
    engine = ScriptedEngine(lambda requests: map(_result, requests))
    maker = FilmMaker(engine, write=lambda *_: None, is_cancelled=lambda _: False, report=reports.append)
    maker.make([BatchItem(job_id="mine", request=film_job("another").request, path="/mine")])
    assert engine.batches == [["mine"]]
    assert _verdicts(reports) == {"mine": "done"}
