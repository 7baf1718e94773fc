"""Workers ended with SIGTERM while they make films: nothing is lost, no attempt is counted, and they end in time."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.bench.auditor import Audit, audit
from server.bench.chaos_blows import percentiles
from server.bench.chaos_clients import Clients
from server.bench.chaos_plan import ChaosPlan
from server.bench.chaos_run import Tell
from server.bench.chaos_site import Site, SiteKind, insist, opened
from server.bench.chaos_view import holders

_KIND = SiteKind(module="server.bench.sleeping_worker")
_TICK_S = 0.03
_WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drains:
    """What came of it: seconds until each worker had ended, asked once or twice, and the jobs that were penalised."""

    once_s: list[float]
    twice_s: list[float]
    penalised: list[str]
    audit: Audit

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "drains": len(self.once_s) + len(self.twice_s),
            "exit_after_one_s": percentiles(self.once_s),
            "exit_after_two_s": percentiles(self.twice_s),
            "penalised": len(self.penalised),
            "lost": len(self.audit.lost),
            "duplicated": len(self.audit.duplicated),
        }

    def faults(self) -> list[str]:
        """A sentence for each thing that went wrong."""
        faults = [f"penalised by a drain: {job_id}" for job_id in self.penalised]
        faults += [f"lost by a drain: {job_id}: {why}" for job_id, why in self.audit.lost.items()]
        return faults + [f"duplicated by a drain: {job_id}: {why}" for job_id, why in self.audit.duplicated.items()]


async def run_drains(folder: Path, drains: int, *, lease_s: float, rng: random.Random, tell: Tell) -> Drains:
    """Drain one worker after another while it holds a lease, every other by two signals, each replaced by a new one.

    BenchError when one does not end at all, or not with exit code 0.
    """
    plan = ChaosPlan(jobs=3 * drains, kills=0, zombies=0, redis_kills=0, cancels=0.0, workers=_WORKERS, lease_s=lease_s)
    once_s: list[float] = []
    twice_s: list[float] = []
    async with opened(folder, _KIND, lease_s=lease_s) as site:
        clients = Clients(site, plan, rng)
        for _ in range(_WORKERS):
            await site.fleet.start()
        while clients.unsettled:
            await clients.tend()
            done = len(once_s) + len(twice_s)
            if done < drains and (found := await insist(lambda: holders(site.client))):
                twice = done % 2 == 1
                seconds = await _drain(site, rng.choice(found).worker_id, twice=twice)
                (twice_s if twice else once_s).append(seconds)
                if done % 10 == 9:
                    tell(f"drains: {done + 1} of {drains}")
            site.fleet.require_alive()
            await asyncio.sleep(_TICK_S)
        await site.fleet.drain()
        found_by_audit = await audit(site.client, site.traces)
        penalised = await _penalised(site)
    return Drains(once_s=once_s, twice_s=twice_s, penalised=penalised, audit=found_by_audit)


async def _drain(site: Site, worker_id: str, *, twice: bool) -> float:
    """Seconds until the worker has ended; its successor is started meanwhile, as in a rolling restart."""
    worker = site.fleet.workers[worker_id]
    began = time.monotonic()
    ending = asyncio.create_task(site.fleet.end(worker, twice=twice))
    await site.fleet.start()
    await ending
    return time.monotonic() - began


async def _penalised(site: Site) -> list[str]:
    """Jobs of which an attempt was counted as failed."""
    prefix = f"{site.queue.prefix}:job:"
    found = []
    async for key in site.client.scan_iter(f"{prefix}*"):
        failures: Any = await site.client.hget(key, "failures")
        if failures != "0":
            found.append(key.removeprefix(prefix))
    return found
