"""Many followers of jobs at once: how late events arrive, and whether one that lost the line misses any."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.bench.figures import latencies_ms
from server.bench.gateway_site import FILM, GatewaySite, gateways

_FOLLOWERS_OF_A_JOB = 10
_WORKERS = 2
_STEPS = 20
_STEP_S = 0.05


@dataclass(slots=True)
class _Follower:
    """What one follower saw: ids in order, lags in seconds, and how often it lost the line."""

    job_id: str
    ids: list[str] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    cuts: int = 0


async def measure_streams(folder: Path, *, count: int, streams: int, seed: int) -> dict[str, Any]:
    """Lags of live events, and over all followers the events missed and the events seen twice.

    Each follower hangs up once, after a random number of events, and comes back with the last id that it saw.
    """
    async with gateways(folder, count, engine=f"sleeping:{_STEP_S}", max_event_streams=1000) as site:
        await site.start_workers(_WORKERS)
        job_ids = await _jobs(site, max(1, streams // _FOLLOWERS_OF_A_JOB))
        dice = random.Random(seed)
        followers = [_Follower(job_ids[number % len(job_ids)]) for number in range(streams)]
        await asyncio.gather(*(_follow(site, follower, dice.randint(1, 4)) for follower in followers))
        truth = {job_id: await _event_ids(site, job_id) for job_id in job_ids}
    return {
        "streams": streams,
        "jobs": len(job_ids),
        "events": sum(len(follower.ids) for follower in followers),
        "lag_ms": latencies_ms([lag for follower in followers for lag in follower.lags]),
        "cuts": sum(follower.cuts for follower in followers),
        "missed": sum(len(set(truth[f.job_id]) - set(f.ids)) for f in followers),
        "seen_twice": sum(len(f.ids) - len(set(f.ids)) for f in followers),
    }


async def _jobs(site: GatewaySite, count: int) -> list[str]:
    connection = site.connection()
    film = FILM | {"num_inference_steps": _STEPS}
    ids = [(await connection.post("/generate", film)).json()["id"] for _ in range(count)]
    await connection.close()
    return ids


async def _event_ids(site: GatewaySite, job_id: str) -> list[str]:
    entries: Any = await site.client.xrange(f"{site.prefix}:events:{job_id}")
    return [event_id for event_id, _ in entries]


async def _follow(site: GatewaySite, follower: _Follower, hang_up_after: int) -> None:
    path = f"/jobs/{follower.job_id}/events"
    opened = time.time()
    async for event_id, _ in site.connection().events(path, after=None):
        _note(follower, event_id, opened)
        if len(follower.ids) == hang_up_after:
            follower.cuts += 1
            break
    opened = time.time()
    async for event_id, _ in site.connection().events(path, after=follower.ids[-1]):
        _note(follower, event_id, opened)


def _note(follower: _Follower, event_id: str, opened: float) -> None:
    follower.ids.append(event_id)
    written = int(event_id.partition("-")[0]) / 1000  # by the queue server's clock, which is this machine's
    if written > opened:  # what was there before is not late
        follower.lags.append(max(0.0, time.time() - written))
