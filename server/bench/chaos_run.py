"""One run under fire: clients submit, workers work, and blow after blow falls on whoever holds a lease."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from server.bench.chaos_blows import Blow, Effect, Kind, effect, schedule
from server.bench.chaos_clients import Clients
from server.bench.chaos_fleet import BenchWorker
from server.bench.chaos_plan import BenchError, ChaosPlan
from server.bench.chaos_site import Site, insist
from server.bench.chaos_view import Holder, events_of, holders

Tell = Callable[[str], None]
_TICK_S = 0.03
_REAP_S = 1.0  # as each gateway does
_TELL_S = 5.0
_STANDSTILL_S = 90.0
# The last blows need jobs to hit.
_BLOWS_DONE_BY = 0.85


@dataclass(slots=True, kw_only=True)
class Inflicted:
    """What was really done: the blows that hit, with their effects, and the number of kills that came too late."""

    effects: list[tuple[Blow, Effect]] = field(default_factory=list)
    missed_kills: int = 0
    redis_kills: int = 0

    def of(self, *kinds: Kind) -> list[Effect]:
        """The effects of blows of these kinds."""
        return [effect for blow, effect in self.effects if blow.kind in kinds]

    def recoveries(self, kind: Kind) -> list[float]:
        """Seconds from each blow of a kind until its job was leased again, where it was."""
        return [effect.recovery_s for effect in self.of(kind) if effect.recovery_s is not None]

    @property
    def zombies(self) -> list[Blow]:
        """Workers that were frozen until their lease was lost."""
        return [blow for blow, _ in self.effects if blow.kind is Kind.ZOMBIE]


class ChaosRun:
    """A plan on its way over a site."""

    def __init__(self, site: Site, plan: ChaosPlan, *, rng: random.Random, tell: Tell) -> None:
        self._site = site
        self._plan = plan
        self._rng = rng
        self._tell = tell
        self._clients = Clients(site, plan, rng)
        self._blows = schedule(plan, rng)
        self._planned = len(self._blows)
        self._pending: list[Blow] = []
        self._frozen: dict[str, float] = {}  # worker id -> the earliest time to thaw it, monotonic
        self._inflicted = Inflicted()

    async def run(self) -> Inflicted:
        """Submit all jobs, strike all blows that find a target, and end the workers when every job has ended."""
        fleet = self._site.fleet
        while len(fleet.living) < self._plan.workers:
            await fleet.start()
        watch = _Watch(self._tell)
        while True:
            await self._clients.tend()
            fleet.require_alive()
            await self._judge()
            if not self._clients.unsettled and not self._pending:
                break
            await self._strike_if_due()
            if watch.due("reap", _REAP_S):
                await insist(self._site.queue.reap)
            watch.look(self._clients.settled, self._plan.jobs, self._inflicted)
            await asyncio.sleep(_TICK_S)
        await fleet.drain()
        return self._inflicted

    async def _judge(self) -> None:
        """Learn what came of the blows that were struck; one that came too late is struck again."""
        for blow in list(self._pending):
            thaw_at = self._frozen.get(blow.worker_id, 0.0) if blow.kind is Kind.ZOMBIE else 0.0
            if time.monotonic() < thaw_at:
                continue
            found = effect(blow, await insist(lambda job_id=blow.job_id: events_of(self._site.client, job_id)))
            if found is None:
                continue
            self._pending.remove(blow)
            if blow.kind is Kind.ZOMBIE:
                self._thaw(blow.worker_id)
            if found.hit:
                self._inflicted.effects.append((blow, found))
            else:
                self._inflicted.missed_kills += blow.kind is not Kind.ZOMBIE
                self._blows.append(blow.kind)

    def _thaw(self, worker_id: str) -> None:
        del self._frozen[worker_id]
        self._site.fleet.workers[worker_id].thaw()

    async def _strike_if_due(self) -> None:
        if not self._blows or not self._is_due(by=_BLOWS_DONE_BY):
            return
        if self._blows[0] is Kind.ZOMBIE and len(self._frozen) >= max(1, self._plan.workers // 3):
            self._blows.rotate(-1)
            return
        if self._blows[0] is Kind.REDIS:
            self._blows.popleft()
            await self._site.kill_queue_server()
            self._inflicted.redis_kills += 1
            return
        found = await insist(lambda: holders(self._site.client))
        targets = [holder for holder in found if self._is_target(holder)]
        # While there is time, so many must be at work that a job that is hit soon finds another worker.
        if len(targets) >= (1 if self._is_due(by=1.0) else math.ceil(self._plan.workers / 2)):
            await self._strike(self._blows.popleft(), self._rng.choice(targets))

    def _is_due(self, *, by: float) -> bool:
        """Whether the next blow is due, if all are to be struck when this share of the jobs has ended."""
        done = self._planned - len(self._blows)
        return self._clients.settled >= done / self._planned * self._plan.jobs * by

    def _is_target(self, holder: Holder) -> bool:
        worker = self._site.fleet.workers[holder.worker_id]
        hurt = {blow.worker_id for blow in self._pending}
        return not (worker.ended or worker.frozen or holder.worker_id in hurt)

    async def _strike(self, kind: Kind, holder: Holder) -> None:
        worker = self._site.fleet.workers[holder.worker_id]
        at = time.time()
        if not _inflict(kind, worker):
            self._blows.append(kind)
            return
        if kind is Kind.ZOMBIE:
            # From just after its lease, when its job is being made again, to long after.
            self._frozen[worker.worker_id] = time.monotonic() + self._site.lease_s + self._rng.uniform(0.2, 1.5)
        self._pending.append(
            Blow(kind=kind, job_id=holder.job_id, attempt=holder.attempt, worker_id=worker.worker_id, at=at)
        )
        if kind is Kind.HOST:
            await self._site.fleet.start()


def _inflict(kind: Kind, worker: BenchWorker) -> bool:
    match kind:
        case Kind.CHILD:
            return worker.kill_child()
        case Kind.HOST:
            worker.kill_host()
        case Kind.ZOMBIE:
            worker.freeze()
        case Kind.REDIS:
            raise AssertionError("the queue server is no worker")
    return True


class _Watch:
    """Tells of progress, and of a standstill."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last: dict[str, float] = {}
        self._settled = 0
        self._moved = time.monotonic()

    def due(self, what: str, every_s: float) -> bool:
        """Whether `every_s` seconds have passed since this was last due."""
        now = time.monotonic()
        if now - self._last.get(what, 0.0) < every_s:
            return False
        self._last[what] = now
        return True

    def look(self, settled: int, jobs: int, inflicted: Inflicted) -> None:
        """Say how far the run is; BenchError when nothing has moved for long."""
        now = time.monotonic()
        if settled != self._settled:
            self._settled, self._moved = settled, now
        if now - self._moved > _STANDSTILL_S:
            raise BenchError(f"no job has ended for {_STANDSTILL_S:.0f} s; {settled} of {jobs} had")
        if self.due("tell", _TELL_S):
            kills, zombies = len(inflicted.of(Kind.CHILD, Kind.HOST)), len(inflicted.zombies)
            self._tell(
                f"{settled} of {jobs} jobs ended; {kills} kills of lease holders, {zombies} zombies, "
                f"{inflicted.redis_kills} kills of the queue server"
            )
