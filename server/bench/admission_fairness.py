"""A quiet tenant beside one that floods: how long its jobs wait, against their wait when it is alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from typing import Any

from engines.types import GenerationRequest, VideoSpec
from server.bench.figures import percentile
from server.bench.gateway_site import GatewaySite, gateways
from server.queue.request_document import to_document
from server.queue.types import JobRecord, NewJob

_STEPS = 10
_STEP_S = 0.03
_QUIET_JOBS = 20
_PAUSE_S = 0.1
_FLOOD_JOBS = 400


async def measure_fairness(folder: Path) -> dict[str, Any]:
    """The 95th percentile of the quiet tenant's waits, alone and beside the flood, and what one job takes; seconds.

    The flood is all there before the quiet tenant's first job, and lasts longer than its last.
    """
    async with gateways(folder, 1, engine=f"sleeping:{_STEP_S}") as site:
        await site.start_workers(1)
        alone = await _quiet_jobs(site, "alone")
        for number in range(_FLOOD_JOBS):
            await site.queue.enqueue(_job(f"flood-{number}", "flood"))
        beside = await _quiet_jobs(site, "beside")
        left = (await site.queue.depth()).queued
    return {
        "alone_wait_p95_s": percentile(_waits(alone), 0.95),
        "beside_wait_p95_s": percentile(_waits(beside), 0.95),
        "job_s": round(median((job.finished_at or 0) - (job.started_at or 0) for job in alone), 3),
        "quiet_jobs": _QUIET_JOBS,
        "flood_jobs_left": left,
    }


async def _quiet_jobs(site: GatewaySite, name: str) -> list[JobRecord]:
    """One job after another, each sent a moment after the last has ended."""
    records = []
    for number in range(_QUIET_JOBS):
        job_id = f"{name}-{number}"
        await site.queue.enqueue(_job(job_id, "quiet"))
        async for _ in site.queue.events(job_id):
            pass
        record = await site.queue.get(job_id)
        assert record is not None  # kept for a day
        records.append(record)
        await asyncio.sleep(_PAUSE_S)
    return records


def _waits(jobs: list[JobRecord]) -> list[float]:
    return [round((job.started_at or 0) - job.created_at, 3) for job in jobs]


def _job(job_id: str, tenant: str) -> NewJob:
    request = GenerationRequest(
        request_id=job_id,
        prompt="a red ball",
        spec=VideoSpec(width=32, height=32, num_frames=1, fps=8),
        num_inference_steps=_STEPS,
        guidance_scale=1.0,
        flow_shift=3.0,
        sampler="euler",
        seed=1,
    )
    return NewJob(
        job_id=job_id,
        tenant=tenant,
        priority=5,
        shape_key=str(request.shape_key),
        cost=_STEPS * _STEP_S,
        request=to_document(request, "mp4"),
    )
