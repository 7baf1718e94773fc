"""GET /healthz, /readyz and /models: whether the process lives, whether videos can be made, and with what."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from server.api.errors import Problem, documented
from server.api.schemas import Health, ModelDefaults, ModelLimits, ModelList, ModelView, Readiness
from server.api.services import Services, TheServices
from server.queue.types import WorkerState

router = APIRouter(tags=["status"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process answers. Nothing else is asked, so that a dead Redis does not get gateways restarted."""
    return Health()


@router.get("/readyz", response_model=Readiness, responses=documented("not_ready", "queue_unavailable"))
async def readyz(services: TheServices) -> Readiness:
    """The queue answers and a worker has the model loaded; otherwise 503 and what is missing."""
    await services.look_at_crew()
    depth = await services.queue.depth()
    if services.crew.ready == 0:
        raise Problem("not_ready", _missing(services), missing=["worker"], headers={"Retry-After": "2"})
    return Readiness(model=services.card.name, workers=services.crew.ready, queued=depth.queued, running=depth.running)


@router.get("/models", response_model=ModelList)
async def models(services: TheServices) -> ModelList:
    """The models served here, with their defaults and their limits."""
    card = services.card
    return ModelList(
        models=[
            ModelView(
                name=card.name,
                family=card.family,
                description=card.description,
                ready=services.crew.ready > 0,
                defaults=ModelDefaults.model_validate(asdict(card.defaults)),
                limits=ModelLimits.model_validate(asdict(card.limits)),
            )
        ]
    )


def _missing(services: Services) -> str:
    states = [notice.state for notice in services.crew.notices]
    if not states:
        return f"no worker for model {services.card.name!r} is running"
    loading = states.count(WorkerState.LOADING)
    draining = states.count(WorkerState.DRAINING)
    return f"no worker is ready: {loading} loading the model, {draining} stopping"
