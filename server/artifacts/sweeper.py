"""Removing what no job will ever serve: losers' files, leftovers of the killed, and films whose jobs have expired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from server.artifacts.filesystem import FilesystemArtifacts
from server.queue.client import JobQueue
from server.queue.types import TERMINAL, JobRecord

_log = logging.getLogger(__name__)


async def sweep(
    artifacts: FilesystemArtifacts,
    queue: JobQueue,
    *,
    grace_s: float = 3600.0,
    now: Callable[[], float] = time.time,
) -> list[str]:
    """Remove files that no record names and that nobody has touched for `grace_s` seconds; their names.

    The store must belong to this queue alone. The grace protects attempts that are being written or published.
    """
    removed: list[str] = []
    records: dict[str, JobRecord | None] = {}
    files = await asyncio.to_thread(lambda: list(artifacts.files()))
    for job_id, attempt, name, changed in files:
        if now() - changed < grace_s:
            continue
        if job_id not in records:
            records[job_id] = await queue.get(job_id)
        if _is_wanted(records[job_id], attempt, name):
            continue
        await asyncio.to_thread(artifacts.remove, name)
        removed.append(name)
    if removed:
        _log.info("swept %d artifact files", len(removed))
    return removed


def _is_wanted(record: JobRecord | None, attempt: int, name: str) -> bool:
    if record is None:
        return False
    if record.state in TERMINAL:
        return record.artifact == name
    return record.attempt == attempt
