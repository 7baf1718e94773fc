"""The control run: the queue without its fence, and a scripted zombie, so that the auditor has something to find."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from server.bench.auditor import Audit, audit
from server.bench.chaos_clients import film_job, submit
from server.bench.chaos_plan import BenchError, ChaosPlan
from server.bench.chaos_run import ChaosRun, Tell
from server.bench.chaos_site import Site, SiteKind, insist, opened, until
from server.bench.chaos_view import events_of, holders
from server.bench.sleeping_child import STEP_S
from server.bench.unfenced import UnfencedQueue

_UNFENCED = SiteKind(module="server.bench.unfenced_worker", queue_type=UnfencedQueue)
_TRIES = 5
_PATIENCE_S = 60.0
_ON_ITS_WAY_S = 0.5  # an outcome may be, when its worker is told of the lost lease


async def run_control(folder: Path, plan: ChaosPlan, *, rng: random.Random, tell: Tell) -> Audit:
    """What the auditor finds when the fence is missing."""
    async with opened(folder, _UNFENCED, lease_s=plan.lease_s) as site:
        await scripted_zombie(site)
        tell("control: the scripted zombie has brought its late outcome")
        await ChaosRun(site, plan, rng=rng, tell=lambda line: tell(f"control: {line}")).run()
        return await audit(site.client, site.traces)


async def scripted_zombie(site: Site) -> None:
    """Freeze a worker with a lease until another has made the film, then let it bring its own; BenchError if it won't.

    A worker that wakes may be told that its lease is lost before it brings anything, in which case this is done again.
    """
    for _ in range(2):
        await site.fleet.start()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for number in range(1, _TRIES + 1):
                if await _play(site, f"scripted-{number}"):
                    return
    except TimeoutError:
        raise BenchError(f"the scripted zombie did not get through its part within {_PATIENCE_S:.0f} s") from None
    raise BenchError(f"the scripted zombie learnt of its lost lease too soon, {_TRIES} times")


async def _play(site: Site, job_id: str) -> bool:
    """Whether the zombie brought a late outcome."""
    # Shorter than the lease, so that the frozen supervisor's child has ended when its lease does.
    steps = max(3, round(site.lease_s / 3 / STEP_S))
    await submit(site, film_job(job_id, tenant="ada", steps=steps, seed=0))
    # Progress is told by the child, so that by then it has its order.
    await _until_told(site, job_id, "progress")
    (holder,) = await insist(lambda: holders(site.client))
    zombie = site.fleet.workers[holder.worker_id]
    zombie.freeze()
    await _until_told(site, job_id, "succeeded")
    zombie.thaw()
    attempt = f"job {job_id} attempt {holder.attempt}"

    async def has_heard() -> bool:
        log = zombie.log.read_text(encoding="utf-8")
        return f"{attempt}: " in log or f"{attempt} is no longer ours" in log

    await until(has_heard)
    await asyncio.sleep(_ON_ITS_WAY_S)
    return f"{attempt}: " in zombie.log.read_text(encoding="utf-8")


async def _until_told(site: Site, job_id: str, event_type: str) -> None:
    async def is_told() -> bool:
        events = await insist(lambda: events_of(site.client, job_id))
        return any(event.type == event_type for event in events)

    await until(is_told)
