"""What clients send and what they get: the HTTP border's documents, every bound stated."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.queue.types import State

MAX_PROMPT_CHARS = 5000
MAX_SEED = 2**53 - 1  # what every JSON reader holds exactly
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _without_controls(text: str) -> str:
    found = _CONTROL.search(text)
    if found:
        raise ValueError(f"holds the control character U+{ord(found[0]):04X} at position {found.start()}")
    return text


_Prompt = Annotated[str, AfterValidator(_without_controls)]


class GenerateBody(BaseModel):
    """A video to make. What is left out takes the model's default; the model's own bounds (GET /models) are tighter."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"prompt": "a red ball rolls over a green meadow", "seed": 7}]},
    )

    prompt: _Prompt = Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="What the video shall show.")
    negative_prompt: _Prompt | None = Field(
        None, max_length=MAX_PROMPT_CHARS, description="What it shall not show; needs guidance_scale above 1."
    )
    model: str | None = Field(None, min_length=1, max_length=100, description="A name that GET /models tells.")
    width: int | None = Field(None, ge=16, le=4096, description="Pixels; a multiple the model tells.")
    height: int | None = Field(None, ge=16, le=4096, description="Pixels; a multiple the model tells.")
    num_frames: int | None = Field(None, ge=1, le=1025, description="Frames; k times a number the model tells, plus 1.")
    fps: int | None = Field(None, ge=1, le=120, description="Frames a second of the file; does not change the frames.")
    num_inference_steps: int | None = Field(
        None, ge=1, le=200, description="Denoising steps. width x height x num_frames x steps is bounded by max_work."
    )
    guidance_scale: float | None = Field(
        None, ge=0.0, le=50.0, allow_inf_nan=False, description="Strength of the prompt; 1 or less means unguided."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Decides the noise: same seed, same video. Drawn when left out.",
    )
    format: Literal["mp4", "webm"] = Field("mp4", description="mp4 holds H.264, webm holds AV1.")
    priority: int = Field(
        5,
        ge=0,
        le=9,
        description="Among your own waiting jobs: 0 is made first. A step is made up for by some minutes of waiting.",
    )
    webhook_url: str | None = Field(
        None, min_length=1, max_length=2048, description="Where the job's end is told by a signed POST; https only."
    )
    enhance_prompt: Literal["auto", "always", "never"] = Field(
        "auto", description="Rewrite the prompt first. There is no enhancer yet: auto does nothing, always is refused."
    )


class Parameters(BaseModel):
    """Everything that decides the video, defaults and seed included; sent back to POST /generate it is made again."""

    prompt: str
    negative_prompt: str
    model: str
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    format: Literal["mp4", "webm"]
    enhance_prompt: Literal["never"] = "never"


class Links(BaseModel):
    """Where the rest of a job is, as paths on this server."""

    self: str
    events: str
    video: str


class JobProgress(BaseModel):
    """How far the engine is: the stage (encode, denoise, decode, done), steps done of steps in all, and their ratio."""

    stage: str
    step: int
    num_steps: int
    fraction: float = Field(ge=0, le=1)


class JobError(BaseModel):
    """Why a job failed: a code for programs, a sentence for people."""

    code: str
    message: str


class JobView(BaseModel):
    """A job. Times are Unix seconds."""

    id: str
    state: State
    cancel_requested: bool = Field(description="The worker has been asked to stop, or will be at its next step.")
    attempt: int = Field(description="How often a worker began; more than 1 after a worker was lost.")
    progress: JobProgress | None
    priority: int = Field(description="0 to 9 among its tenant's waiting jobs; the smaller goes first.")
    queue_position: int | None = Field(description="Jobs before this one; null unless queued.")
    estimate_seconds: float | None = Field(description="Predicted seconds until the video is there; null when over.")
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None = Field(description="When the job and its video are forgotten; null until it is over.")
    seed: int
    parameters: Parameters
    video: dict[str, object] | None = Field(description="Facts of the finished file, such as its size and its timings.")
    error: JobError | None
    links: Links


class ModelLimits(BaseModel):
    """The bounds of a request to a model, all inclusive."""

    spatial_multiple: int = Field(description="Width and height are multiples of this.")
    temporal_multiple: int = Field(description="num_frames is a multiple of this, plus 1.")
    min_width: int
    max_width: int
    min_height: int
    max_height: int
    min_frames: int
    max_frames: int
    min_fps: int
    max_fps: int
    max_steps: int
    max_guidance_scale: float
    max_prompt_chars: int
    max_work: int = Field(description="Largest width x height x num_frames x num_inference_steps.")


class ModelDefaults(BaseModel):
    """What a request that says nothing gets."""

    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float


class ModelView(BaseModel):
    """A model that is served here."""

    name: str
    family: str
    description: str
    ready: bool = Field(description="A worker has it loaded.")
    defaults: ModelDefaults
    limits: ModelLimits


class ModelList(BaseModel):
    """The models that are served here."""

    models: list[ModelView]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Videos can be made: the queue answers and workers have the model loaded. A stranger is told the status alone."""

    status: Literal["ready"] = "ready"
    model: str | None = None
    workers: int | None = None
    queued: int | None = None
    running: int | None = None
