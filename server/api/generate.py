"""POST /generate: a film is asked for, checked, given a seed and an id, and put into the queue."""

from __future__ import annotations

import math
import secrets
from typing import Annotated

from fastapi import APIRouter, Header, Response

from server.api.auth import Caller
from server.api.errors import Problem, documented
from server.api.json_route import JsonRoute
from server.api.resolve import body_hash, document_of, resolve
from server.api.schemas import MAX_SEED, GenerateBody, JobView
from server.api.services import Services, TheServices
from server.api.views import view_of
from server.api.webhooks import checked_webhook
from server.queue.types import Accepted, IdempotencyConflict, NewJob, QueueFull, TenantQuotaReached

router = APIRouter(route_class=JsonRoute, tags=["jobs"])
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Repeat a request with the same key and body and get the same job, not a second one.",
    ),
]


@router.post(
    "/generate",
    status_code=202,
    response_model=JobView,
    responses=documented(
        "invalid_json",
        "invalid_host",
        "request_timeout",
        "body_too_large",
        "unsupported_media_type",
        "invalid_field",
        "unknown_model",
        "enhancer_unavailable",
        "webhooks_unavailable",
        "idempotency_conflict",
        "queue_full",
        "tenant_quota",
        "queue_unavailable",
    ),
)
async def generate(
    body: GenerateBody,
    response: Response,
    services: TheServices,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Ask for a video. The answer is the job, with its links, its seed and every parameter resolved."""
    job_id = secrets.token_hex(16)
    request = resolve(body, services.card, job_id=job_id, drawn_seed=secrets.randbelow(MAX_SEED + 1))
    job = NewJob(
        job_id=job_id,
        tenant=caller.name,
        priority=body.priority,
        shape_key=str(request.shape_key),
        cost=services.crew.cost_model.predict(request),
        request=document_of(request, body.format, services.card.name),
        idempotency_key=idempotency_key,
        body_hash=body_hash(body),
        tenant_max_jobs=caller.max_jobs,
        tenant_max_seconds=caller.max_seconds,
        webhook=checked_webhook(body.webhook_url, services, tenant=caller.name),
    )
    accepted = _accepted(await services.queue.enqueue(job))
    response.headers["Location"] = f"/jobs/{accepted.job_id}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return await _stored_view(accepted.job_id, services)


async def _stored_view(job_id: str, services: Services) -> JobView:
    record = await services.queue.get(job_id)
    if record is None:
        raise Problem("not_found", "the job of this idempotency key is no longer kept; use a new key")
    return await view_of(record, services)


def _accepted(answer: Accepted | QueueFull | TenantQuotaReached | IdempotencyConflict) -> Accepted:
    match answer:
        case Accepted():
            return answer
        case QueueFull(retry_after=seconds):
            raise _try_again("queue_full", "too much work is waiting", seconds)
        case TenantQuotaReached(retry_after=seconds):
            raise _try_again("tenant_quota", "as much of yours waits and runs as your quota allows", seconds)
        case IdempotencyConflict():
            raise Problem(
                "idempotency_conflict", "this Idempotency-Key was used with another body; use a new key for a new video"
            )


def _try_again(code: str, reason: str, seconds: float) -> Problem:
    wait = max(1, math.ceil(seconds))
    return Problem(code, f"{reason}; try again in {wait} s", headers={"Retry-After": str(wait)})
