"""The control of the chaos bench: the queue's own library with the comparison of the attempt, its fence, taken out."""

from __future__ import annotations

from server.queue.client import JobQueue
from server.queue.library import LIBRARY_PATH

# Exactly these two, so that the control differs from the library in nothing but the fence: who holds a lease, and
# whose outcome it was that a repeated `finish` repeats.
_COMPARISONS = (
    ("return job[1] == 'running' and tonumber(job[2]) == q.attempt", "return job[1] == 'running'"),
    ("return job[1] == q.state and tonumber(job[2]) == q.attempt and 'ok' or 'stale'",
     "return job[1] == q.state and 'ok' or 'stale'"),
)  # fmt: skip


class UnknownLibraryError(ValueError):
    """The library is not written as the control expects, so that it cannot take out the fence and nothing else."""


class UnfencedQueue(JobQueue):
    """A queue that accepts an outcome from any attempt; for the bench's own server alone."""

    async def install(self) -> None:
        """Load the library without its fence in place of whatever is there."""
        await self._redis.function_load(unfenced(LIBRARY_PATH.read_text(encoding="utf-8")), replace=True)


def unfenced(library: str) -> str:
    """The library's text without its comparisons of the attempt; UnknownLibraryError unless each is there once."""
    for comparison, rest in _COMPARISONS:
        found = library.count(comparison)
        if found != 1:
            raise UnknownLibraryError(
                f"the queue's library holds {comparison!r} {found} times, not once; "
                "write into server/bench/unfenced.py how it compares attempts now"
            )
        library = library.replace(comparison, rest)
    return library
