"""`python -m server.worker` with the child that sleeps."""

from __future__ import annotations

from server.worker.__main__ import main

if __name__ == "__main__":
    main(runner="tests.server.worker.sleeping_runner")
