"""A child whose engine sleeps through its steps and fails on demand, for tests of what surrounds an engine.

A prompt is a list of words: `crash`, `hang`, `oom`, `error`, `invalid`; `WORD@PATH` happens only once, the
first time that the file PATH can be made. Everything else about the film follows from the seed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engines.errors import InvalidModel, InvalidRequest
from engines.types import (
    CancelledEvent,
    EngineEvent,
    GenerationRequest,
    GenerationResult,
    IsCancelled,
    MemoryRung,
    StageEvent,
    StepEvent,
)
from server.worker.serving import run_child

STEP_S = 0.05


class SleepingEngine:
    """Follows the protocol of engines: stages, steps, cancellation between two steps, results."""

    rungs = (MemoryRung.WHOLE, MemoryRung.TILED)

    def generate(
        self, requests: Sequence[GenerationRequest], *, is_cancelled: IsCancelled, rung: MemoryRung
    ) -> Iterator[EngineEvent]:
        live = list(requests)
        for request in live:
            yield StageEvent(request_id=request.request_id, stage="encode")
        for request in live:
            yield StageEvent(request_id=request.request_id, stage="denoise")
        steps = live[0].num_inference_steps
        for step in range(1, steps + 1):
            for request in [request for request in live if is_cancelled(request.request_id)]:
                live.remove(request)
                yield CancelledEvent(request_id=request.request_id)
            time.sleep(STEP_S)
            for request in live:
                if step == 3:
                    _misbehave(request)
                yield StepEvent(request_id=request.request_id, step=step, num_steps=steps)
        for request in live:
            yield _film(request, rung)


def _film(request: GenerationRequest, rung: MemoryRung) -> GenerationResult:
    spec, random = request.spec, np.random.default_rng(request.seed)
    frames = random.integers(0, 255, (spec.num_frames, spec.height, spec.width, 3), dtype=np.uint8)
    latents = random.normal(size=(4, 1, 4, 4)).astype(np.float32)
    return GenerationResult(request=request, frames=frames, latents=latents, rung=rung, seconds={"denoise": 1.0})


def _misbehave(request: GenerationRequest) -> None:
    for wish in request.prompt.split():
        word, _, path = wish.partition("@")
        if path and not _first_time(Path(path)):
            continue
        match word:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                threading.Event().wait()
            case "oom":
                raise MemoryError
            case "error":
                raise RuntimeError(f"secret detail of {__file__}")
            case "invalid":
                raise InvalidRequest("width", "width is 3; it must be a multiple of 16")


def _first_time(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def load(model: str, _max_batch: int) -> SleepingEngine:
    """The engine; a model named `broken` cannot be loaded."""
    if model == "broken":
        raise InvalidModel("the folder broken holds no model_index.json")
    return SleepingEngine()


if __name__ == "__main__":
    run_child(load)
