"""`python -m server.bench.unfenced_worker`: the sleeping worker on the queue whose fence is taken away."""

from __future__ import annotations

from server.bench.unfenced import UnfencedQueue
from server.worker.__main__ import main

if __name__ == "__main__":
    main(runner="server.bench.sleeping_child", queue_type=UnfencedQueue)
