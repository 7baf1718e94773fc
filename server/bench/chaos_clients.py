"""The clients of a chaos run: several tenants that submit films, wait for them and now and then cancel one."""

from __future__ import annotations

import random
import time

from engines.types import GenerationRequest, VideoSpec
from server.bench.chaos_plan import BenchError, ChaosPlan
from server.bench.chaos_site import Site, insist
from server.bench.chaos_view import states_of
from server.bench.sleeping_child import STEP_S
from server.queue.request_document import to_document
from server.queue.types import TERMINAL, Accepted, NewJob

_TENANTS = ("ada", "ben", "cleo", "dan")
_BLOW_S = 0.6  # what a blow costs a small machine: processes that start anew, and one worker less meanwhile
_WAITING = 2  # jobs that wait for each worker


class Clients:
    """Keeps some jobs waiting for each worker until all of the plan's have been submitted and have ended."""

    def __init__(self, site: Site, plan: ChaosPlan, rng: random.Random) -> None:
        self._site = site
        self._plan = plan
        self._rng = rng
        self._steps = mean_steps(plan)
        self._submitted = 0
        self._open: set[str] = set()
        self._cancels: dict[str, float] = {}

    @property
    def settled(self) -> int:
        """Jobs that have ended."""
        return self._submitted - len(self._open)

    @property
    def unsettled(self) -> int:
        """Jobs that have not ended, submitted or not."""
        return self._plan.jobs - self.settled

    async def tend(self) -> None:
        """Look which jobs have ended, cancel those whose time has come, submit others."""
        states = await insist(lambda: states_of(self._site.client, sorted(self._open)))
        self._open -= {job_id for job_id, state in states.items() if state in TERMINAL}
        now = time.monotonic()
        for job_id in [job_id for job_id, due in self._cancels.items() if due <= now]:
            del self._cancels[job_id]
            await insist(lambda job_id=job_id: self._site.queue.cancel(job_id))
        while self._submitted < self._plan.jobs and len(self._open) < (1 + _WAITING) * self._plan.workers:
            await self._submit()

    async def _submit(self) -> None:
        number = self._submitted + 1
        steps = max(3, round(self._steps * self._rng.uniform(0.5, 1.5)))
        job = film_job(f"job-{number}", tenant=self._rng.choice(_TENANTS), steps=steps, seed=number)
        await submit(self._site, job)
        self._submitted = number
        self._open.add(job.job_id)
        if self._rng.random() < self._plan.cancels:
            # From at once, when it waits, to when it has probably ended.
            patience_s = self._rng.uniform(0.0, 1.5 * (1 + _WAITING) * self._steps * STEP_S)
            self._cancels[job.job_id] = time.monotonic() + patience_s


async def submit(site: Site, job: NewJob) -> None:
    """Have a job accepted, however long that takes, and note the receipt."""
    answer = await insist(lambda: site.queue.enqueue(job))
    if not isinstance(answer, Accepted):
        raise BenchError(f"the queue did not accept {job.job_id}: {answer}")
    with site.receipts.open("a", encoding="utf-8") as file:
        file.write(f"{job.job_id}\n")


def mean_steps(plan: ChaosPlan) -> int:
    """Steps of a film, so that all films together take about as long as all blows."""
    blows = plan.kills + plan.zombies + plan.redis_kills
    seconds = blows * _BLOW_S * plan.workers / plan.jobs
    return round(min(2.0, max(0.3, seconds)) / STEP_S)


def film_job(job_id: str, *, tenant: str, steps: int, seed: int) -> NewJob:
    """A small film for the engine that sleeps."""
    request = GenerationRequest(
        request_id=job_id,
        prompt="a film that nobody dreams",
        spec=VideoSpec(width=32, height=32, num_frames=5, fps=8),
        num_inference_steps=steps,
        guidance_scale=1.0,
        flow_shift=3.0,
        sampler="unipc",
        seed=seed,
    )
    return NewJob(
        job_id=job_id,
        tenant=tenant,
        # One for all, or the wait behind others' would be measured as a slow recovery.
        priority=0,
        shape_key=str(request.shape_key),
        cost=steps * STEP_S,
        request=to_document(request, "mp4"),
    )
