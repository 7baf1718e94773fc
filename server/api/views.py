"""A job as clients see it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from server.api.auth import Tenant
from server.api.errors import Problem
from server.api.resolve import parameters_of
from server.api.schemas import JobError, JobProgress, JobView, Links
from server.api.services import Services, TheServices
from server.queue.types import JobRecord, State

_MOST_BEFORE_THE_END = 0.99


def links_of(job_id: str) -> Links:
    """Where the rest of a job is."""
    return Links(self=f"/jobs/{job_id}", events=f"/jobs/{job_id}/events", video=f"/jobs/{job_id}/video")


async def find_job(job_id: str, services: TheServices, tenant: Tenant) -> JobRecord:
    """The tenant's job; Problem `not_found` alike for none and for somebody else's, so that ids can't be tried."""
    record = await services.queue.get(job_id) if _is_id(job_id) else None
    if record is None or record.tenant != tenant:
        raise Problem("not_found", "there is no job of that id (any more)")
    return record


FoundJob = Annotated[JobRecord, Depends(find_job)]


async def view_of(record: JobRecord, services: Services) -> JobView:
    """The document for `GET /jobs/{id}`."""
    parameters = parameters_of(record.request)
    ahead = await services.queue.ahead(record.job_id) if record.state is State.QUEUED else None
    over = record.finished_at
    return JobView(
        id=record.job_id,
        state=record.state,
        cancel_requested=record.cancel_requested,
        attempt=record.attempt,
        progress=_progress(record),
        priority=record.priority,
        queue_position=None if ahead is None else ahead.jobs,
        estimate_seconds=services.estimate(record, ahead),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=over,
        expires_at=None if over is None else over + services.settings.retention_seconds,
        seed=parameters.seed,
        parameters=parameters,
        video=record.facts,
        error=_error(record),
        links=links_of(record.job_id),
    )


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(character in "0123456789abcdef" for character in text)


def _progress(record: JobRecord) -> JobProgress | None:
    told = record.progress
    if told is None or record.state is State.QUEUED:
        return None
    if record.state is State.SUCCEEDED:
        # A quick film is over before the worker has told of its last steps.
        return JobProgress(stage="done", step=told.num_steps, num_steps=told.num_steps, fraction=1.0)
    fraction = told.step / told.num_steps if told.num_steps else 0.0
    # All steps done is not yet a film: it is still to be decoded, encoded and stored.
    fraction = round(min(_MOST_BEFORE_THE_END, fraction), 4)
    return JobProgress(stage=told.stage, step=told.step, num_steps=told.num_steps, fraction=fraction)


def _error(record: JobRecord) -> JobError | None:
    if record.error_code is None:
        return None
    return JobError(code=record.error_code, message=record.error_message or "no more is known")
