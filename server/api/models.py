"""GET /models: what is served here, with its defaults and its limits."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from server.api.schemas import ModelDefaults, ModelLimits, ModelList, ModelView
from server.api.services import TheServices

router = APIRouter(tags=["status"])


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
