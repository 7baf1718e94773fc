"""`python -m server.bench.sleeping_worker`: the real supervisor over the child that sleeps."""

from __future__ import annotations

from server.worker.__main__ import main

if __name__ == "__main__":
    main(runner="server.bench.sleeping_child")
