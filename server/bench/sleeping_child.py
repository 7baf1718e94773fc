"""The child of a bench's worker: its engine sleeps through its steps, everything around it is the real thing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

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

STEP_S = 0.03


class SleepingEngine:
    """Follows the protocol of engines: stages, steps, cancellation between two steps, results.

    Everything about a film follows from its request's seed. `at_step(request, step)` is called during each step.
    """

    rungs = (MemoryRung.WHOLE, MemoryRung.TILED)

    def __init__(self, *, step_s: float, at_step: Callable[[GenerationRequest, int], None] | None = None) -> None:
        self._step_s = step_s
        self._at_step = at_step

    def generate(
        self, requests: Sequence[GenerationRequest], *, is_cancelled: IsCancelled, rung: MemoryRung
    ) -> Iterator[EngineEvent]:
        """Make the films together."""
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
            time.sleep(self._step_s)
            for request in live:
                if self._at_step:
                    self._at_step(request, step)
                yield StepEvent(request_id=request.request_id, step=step, num_steps=steps)
        for request in live:
            yield _film(request, rung, {"denoise": steps * self._step_s})


def _film(request: GenerationRequest, rung: MemoryRung, seconds: dict[str, float]) -> GenerationResult:
    spec, random = request.spec, np.random.default_rng(request.seed)
    frames = random.integers(0, 255, (spec.num_frames, spec.height, spec.width, 3), dtype=np.uint8)
    latents = random.normal(size=(4, 1, 4, 4)).astype(np.float32)
    return GenerationResult(request=request, frames=frames, latents=latents, rung=rung, seconds=seconds)


def load(model: str, _max_batch: int) -> SleepingEngine:
    """The engine; a model called `sleeping:0.1` sleeps so many seconds a step."""
    return SleepingEngine(step_s=float(model.partition(":")[2] or STEP_S))


if __name__ == "__main__":
    run_child(load)
