"""GET /healthz and /readyz: whether the process lives, and whether videos can be made; open to everybody."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.auth import KnownCaller
from server.api.errors import Problem, documented
from server.api.schemas import Health, Readiness
from server.api.services import Services, TheServices
from server.queue.types import WorkerState

router = APIRouter(tags=["status"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process answers. Nothing else is asked, so that a dead Redis does not get gateways restarted."""
    return Health()


@router.get(
    "/readyz",
    response_model=Readiness,
    response_model_exclude_none=True,
    responses=documented("not_ready", "queue_unavailable"),
)
async def readyz(services: TheServices, caller: KnownCaller) -> Readiness:
    """The queue answers and a worker has the model loaded; otherwise 503 and what is missing.

    A stranger is told no more than that; who has a key is also told what there is.
    """
    await services.look_at_crew()
    depth = await services.queue.depth()
    if services.crew.ready == 0:
        detail = _missing(services) if caller else "no worker is ready"
        raise Problem("not_ready", detail, missing=["worker"], headers={"Retry-After": "2"})
    if caller is None:
        return Readiness()
    return Readiness(model=services.card.name, workers=services.crew.ready, queued=depth.queued, running=depth.running)


def _missing(services: Services) -> str:
    states = [notice.state for notice in services.crew.notices]
    if not states:
        return f"no worker for model {services.card.name!r} is running"
    told = {"loading the model": WorkerState.LOADING, "unable to store films": WorkerState.BLOCKED}
    told["stopping"] = WorkerState.DRAINING
    return "no worker is ready: " + ", ".join(f"{states.count(state)} {words}" for words, state in told.items())
