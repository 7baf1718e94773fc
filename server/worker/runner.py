"""The child process of a worker: a real engine, served to the supervisor."""

from __future__ import annotations

from engines import load_engine
from server.worker.serving import run_child

if __name__ == "__main__":
    run_child(load_engine)
