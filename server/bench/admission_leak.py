"""One worker through very many small jobs: whether its memory or its open files grow with them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from server.bench.chaos_plan import BenchError
from server.bench.figures import slope
from server.bench.gateway_site import FILM, GatewaySite, gateways, resident_bytes

_AHEAD = 8
_POINTS = 40
# Caches and the allocator's arenas fill first; what comes after is growth.
_SETTLED = 0.4


async def measure_leak(folder: Path, *, jobs: int, engine: str) -> dict[str, Any]:
    """Bytes a job by which supervisor and child grow after they have settled, and the most files open in two halves.

    `engine` is `real`, the built-in model, or `sleeping:STEP_SECONDS`.
    """
    async with gateways(folder, 1, engine=engine) as site:
        await site.start_workers(1)
        (worker,) = site.fleet.living
        child = worker.child_pid
        if child is None:
            raise BenchError("the worker has no engine process")
        pids = {"supervisor": worker.process.pid, "child": child}
        points = await _watch_jobs(site, jobs, pids)
        if worker.child_pid != child:
            raise BenchError("the worker's engine process ended in the middle; its memory cannot be compared")
    settled = [point for point in points if point["jobs"] >= _SETTLED * jobs]
    return {
        "jobs": jobs,
        "engine": engine,
        "bytes_per_job": {who: round(slope([(p["jobs"], p[who]) for p in settled])) for who in pids},
        "open_files": {who: _most_files(settled, who) for who in pids},
        "resident_mb": {who: round(settled[-1][who] / 2**20, 1) for who in pids},
    }


def _most_files(points: list[dict[str, int]], who: str) -> list[int]:
    """The most files that were open at once, in the first and in the second half: connections come and go."""
    half = max(1, len(points) // 2)
    return [max(point[f"{who}_files"] for point in part) for part in (points[:half], points[half:] or points)]


async def _watch_jobs(site: GatewaySite, jobs: int, pids: dict[str, int]) -> list[dict[str, int]]:
    """Memory and open files after so many jobs, `_POINTS` times on the way."""
    connection = site.connection()
    points: list[dict[str, int]] = []
    sent = 0
    while not points or points[-1]["jobs"] < jobs:
        while sent < jobs and (await site.queue.depth()).queued < _AHEAD:
            answer = await connection.post("/generate", FILM)
            if answer.status != 202:
                raise BenchError(f"the gateway answers {answer.status} to a small job")
            sent += 1
        await asyncio.sleep(0.02)
        site.fleet.require_alive()
        depth = await site.queue.depth()
        done = sent - depth.queued - depth.running
        if done >= len(points) * jobs / _POINTS or done == jobs:
            points.append({"jobs": done} | _sizes(pids))
    await connection.close()
    return points


def _sizes(pids: dict[str, int]) -> dict[str, int]:
    told: dict[str, int] = {}
    for who, pid in pids.items():
        told[who], told[f"{who}_files"] = resident_bytes(pid), 0
        with contextlib.suppress(OSError):
            told[f"{who}_files"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return told
