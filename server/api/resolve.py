"""From what a client sent to the one film it means: defaults filled in, seed fixed, bounds checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from engines.card import ModelCard
from engines.errors import InvalidRequest
from engines.limits import check_request
from engines.types import GenerationRequest, VideoSpec
from server.api.errors import Problem, field_problem
from server.api.schemas import GenerateBody, Parameters
from server.queue.request_document import VideoFormat, from_document, to_document


def resolve(body: GenerateBody, card: ModelCard, *, job_id: str, drawn_seed: int) -> GenerationRequest:
    """The film that `body` asks of the model; Problem when it names another one or breaks one of its bounds."""
    if body.model is not None and body.model != card.name:
        raise Problem(
            "unknown_model",
            f"model {body.model[:64]!r} is not served here; {card.name!r} is",
            field="model",
            known=[card.name],
        )
    if body.enhance_prompt == "always":
        raise Problem(
            "enhancer_unavailable",
            "enhance_prompt is 'always', but this server has no prompt enhancer; use 'auto' or 'never'",
            field="enhance_prompt",
        )
    sent = body.model_dump(exclude_none=True)
    chosen = asdict(card.defaults) | {name: sent[name] for name in sent if hasattr(card.defaults, name)}
    request = GenerationRequest(
        request_id=job_id,
        prompt=body.prompt,
        negative_prompt=chosen["negative_prompt"],
        spec=VideoSpec(**{name: chosen[name] for name in ("width", "height", "num_frames", "fps")}),
        num_inference_steps=chosen["num_inference_steps"],
        guidance_scale=float(chosen["guidance_scale"]),
        flow_shift=chosen["flow_shift"],
        sampler=chosen["sampler"],
        seed=drawn_seed if body.seed is None else body.seed,
    )
    try:
        check_request(request, card)
    except InvalidRequest as error:
        raise field_problem(error.field, str(error)) from None
    return request


def document_of(request: GenerationRequest, video_format: VideoFormat, model: str) -> dict[str, Any]:
    """What is kept with a job: the film, its format, and the model it was admitted for."""
    return to_document(request, video_format) | {"model": model}


def parameters_of(document: dict[str, Any]) -> Parameters:
    """The parameters kept with a job, as clients see them."""
    request, video_format = from_document(document)
    return Parameters(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        model=document["model"],
        width=request.spec.width,
        height=request.spec.height,
        num_frames=request.spec.num_frames,
        fps=request.spec.fps,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        seed=request.seed,
        format=video_format,
    )


def body_hash(body: GenerateBody) -> str:
    """What tells two bodies apart for an idempotency key: the fields that were sent, not how they were written."""
    sent = json.dumps(body.model_dump(exclude_unset=True), sort_keys=True)
    return hashlib.sha256(sent.encode()).hexdigest()
