"""GET and DELETE /jobs/{id}: how a job stands, and calling it off."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.api.auth import Tenant
from server.api.errors import documented
from server.api.schemas import JobView
from server.api.services import TheServices
from server.api.views import FoundJob, find_job, view_of
from server.queue.types import Cancellation

router = APIRouter(tags=["jobs"])
_PROBLEMS = documented("invalid_host", "not_found", "queue_unavailable")


@router.get("/jobs/{job_id}", response_model=JobView, responses=_PROBLEMS)
async def get_job(record: FoundJob, services: TheServices) -> JobView:
    """How the job stands: state, progress, place in the queue, an estimate, and the error if it failed."""
    return await view_of(record, services)


@router.delete(
    "/jobs/{job_id}",
    response_model=JobView,
    responses=_PROBLEMS | {202: {"model": JobView, "description": "It runs, and is stopped at its next step."}},
)
async def cancel_job(record: FoundJob, response: Response, services: TheServices, tenant: Tenant) -> JobView:
    """Call the job off: a queued one never starts, a running one stops at its next step, one that is over stays as is.

    It may be repeated; the answer is the job as it then stands.
    """
    cancellation = await services.queue.cancel(record.job_id)
    if cancellation is Cancellation.REQUESTED:
        response.status_code = 202
    return await view_of(await find_job(record.job_id, services, tenant), services)
