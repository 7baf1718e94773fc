"""The child's ear: orders are read by a thread, so that a cancellation arrives while the engine works."""

from __future__ import annotations

import os
import queue
import threading

from server.worker.channel import ChildChannel
from server.worker.wire import BatchItem, CancelJob, RunBatch, WireError, batch_items

_ORPHANED = 3  # exit code when the supervisor is gone


class Inbox:
    """Orders from the supervisor; the process ends at once when the supervisor does, or makes no sense."""

    def __init__(self, channel: ChildChannel) -> None:
        self._channel = channel
        self._batches: queue.SimpleQueue[list[BatchItem]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def next_batch(self) -> list[BatchItem]:
        """Wait for a batch."""
        return self._batches.get()

    def is_cancelled(self, job_id: str) -> bool:
        """Whether the supervisor has asked to stop this job of the present batch."""
        return job_id in self._cancelled

    def _read(self) -> None:
        while self._read_one():
            pass
        # No clean-up: the main thread may be deep in a kernel, and nobody is left to report to.
        os._exit(_ORPHANED)

    def _read_one(self) -> bool:
        try:
            order = self._channel.receive()
            match order:
                case RunBatch():
                    # What was cancelled before belongs to earlier attempts; the same job may have come back.
                    self._cancelled = set()
                    self._batches.put(batch_items(order))
                case CancelJob():
                    self._cancelled.add(order.job_id)
                case _:
                    return False
        except (OSError, WireError):
            return False
        return True
