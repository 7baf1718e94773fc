"""Kills of the child while the built-in model makes films: each film that is made again must be the same to the bit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from engines.card import read_card
from engines.catalog import find_model
from engines.types import GenerationRequest, VideoSpec
from server.bench.chaos_clients import submit
from server.bench.chaos_fleet import BenchWorker
from server.bench.chaos_plan import BenchError
from server.bench.chaos_run import Tell
from server.bench.chaos_site import Site, SiteKind, opened
from server.queue.request_document import to_document
from server.queue.types import JobRecord, NewJob, State

_MODEL = "diorama"
_LEASE_S = 6.0
_FILM_S = 600.0  # the patience with one film
_PROMPTS = (
    "a red ball rolls over a green meadow",
    "a blue car drives along a road",
    "a yellow duck swims on a lake",
    "a white cat jumps over a box",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealKills:
    """Films whose child was killed half-way, and of these the ids of those that came out otherwise."""

    kills: int
    differing: list[str]


async def run_real_kills(folder: Path, kills: int, *, rng: random.Random, tell: Tell) -> RealKills:
    """Make each film in peace, then again and again with its child killed at a step drawn by chance."""
    kind = SiteKind(module="server.worker", model=_MODEL)
    async with opened(folder, kind, lease_s=_LEASE_S) as site:
        worker = await site.fleet.start()
        films = min(len(_PROMPTS), kills)
        expected = [_latents(await _ended(site, await _submit(site, f"peace-{film}", film))) for film in range(films)]
        tell(f"real model: {films} films made in peace")
        differing: list[str] = []
        for number in range(1, kills + 1):
            job_id, film = f"killed-{number}", number % films
            record = await _made_under_fire(site, worker, job_id, film, rng)
            if _latents(record) != expected[film]:
                differing.append(record.job_id)
            tell(f"real model: {number} of {kills} films made although their child was killed")
        await site.fleet.drain()
        return RealKills(kills=kills, differing=differing)


async def _made_under_fire(site: Site, worker: BenchWorker, job_id: str, film: int, rng: random.Random) -> JobRecord:
    """The film's record, its child having been killed; made under further names when the kill came too late."""
    while True:
        job = await _submit(site, job_id, film)
        at_step = rng.randrange(1, job.request["generation"]["num_inference_steps"] - 1)
        async with _patience(job_id):
            async for event in site.queue.events(job_id):
                if event.type == "progress" and event.data["step"] >= at_step:
                    break
        worker.kill_child()
        record = await _ended(site, job)
        if record.attempt > 1:
            return record
        job_id += "-again"


async def _submit(site: Site, job_id: str, film: int) -> NewJob:
    defaults = read_card(find_model(_MODEL)).defaults
    request = GenerationRequest(
        request_id=job_id,
        prompt=_PROMPTS[film],
        negative_prompt=defaults.negative_prompt,
        spec=VideoSpec(width=defaults.width, height=defaults.height, num_frames=defaults.num_frames, fps=defaults.fps),
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        flow_shift=defaults.flow_shift,
        sampler=defaults.sampler,
        seed=film,
    )
    job = NewJob(
        job_id=job_id,
        tenant="ada",
        priority=0,
        shape_key=str(request.shape_key),
        cost=1.0,
        request=to_document(request, "mp4"),
    )
    await submit(site, job)
    return job


async def _ended(site: Site, job: NewJob) -> JobRecord:
    async with _patience(job.job_id):
        async for _ in site.queue.events(job.job_id):
            site.fleet.require_alive()
    record = await site.queue.get(job.job_id)
    if record is None or record.state is not State.SUCCEEDED:
        raise BenchError(f"the film {job.job_id} did not succeed: {record and record.error_message}")
    return record


@contextlib.asynccontextmanager
async def _patience(job_id: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_FILM_S):
            yield
    except TimeoutError:
        raise BenchError(f"the film {job_id} was not made within {_FILM_S:.0f} s") from None


def _latents(record: JobRecord) -> str:
    assert record.facts is not None
    return record.facts["latents_sha256"]
