"""The child process of a worker: a real engine, served to the supervisor."""

from __future__ import annotations

from engines import Engine, load_engine
from server.worker.serving import run_child


def load(model: str, max_batch: int) -> Engine:
    """The engine of `model`; every batch is padded to `max_batch` rows, so that a film is the same in any company."""
    return load_engine(model, pad_batch_to=max_batch)


if __name__ == "__main__":
    run_child(load)
