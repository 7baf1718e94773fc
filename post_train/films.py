"""Films by the serving engine for post-training: many prompts and seeds, batched, with a model's own defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.card import ModelCard
from engines.types import GenerationRequest, GenerationResult, VideoSpec

if TYPE_CHECKING:  # it loads torch, and a request needs none
    from engines.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmOrder:
    """One film that is wanted; `name` comes back with it. `steps` is None for the model's own number."""

    name: str
    prompt: str
    seed: int
    steps: int | None = None


def request_of(card: ModelCard, order: FilmOrder) -> GenerationRequest:
    """The request of a film with the defaults of a model."""
    d = card.defaults
    return GenerationRequest(
        request_id=order.name,
        prompt=order.prompt,
        negative_prompt=d.negative_prompt,
        spec=VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps),
        num_inference_steps=d.num_inference_steps if order.steps is None else order.steps,
        guidance_scale=d.guidance_scale,
        flow_shift=d.flow_shift,
        sampler=d.sampler,
        seed=order.seed,
    )


def draw_films(
    engine: Engine, orders: Sequence[FilmOrder], *, batch: int = 4
) -> Iterator[tuple[FilmOrder, GenerationResult]]:
    """The films of `orders`, in order, `batch` at a time."""
    for start in range(0, len(orders), batch):
        some = orders[start : start + batch]
        events = engine.generate([request_of(engine.card, order) for order in some])
        results = [e for e in events if isinstance(e, GenerationResult)]
        yield from zip(some, results, strict=True)
