"""A child whose engine sleeps through its steps and fails on demand, for tests of what surrounds an engine.

A prompt is a list of words: `crash`, `hang`, `oom`, `error`, `invalid`; `WORD@PATH` happens only once, the
first time that the file PATH can be made. Everything else about the film follows from the seed.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from engines.errors import InvalidModel, InvalidRequest
from engines.types import GenerationRequest
from server.bench.sleeping_child import SleepingEngine
from server.worker.serving import run_child

STEP_S = 0.05


def _misbehave(request: GenerationRequest, step: int) -> None:
    if step != 3:
        return
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
    return SleepingEngine(step_s=STEP_S, at_step=_misbehave)


if __name__ == "__main__":
    run_child(load)
