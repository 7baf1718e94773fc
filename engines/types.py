"""What goes into an engine and what comes out of it, in plain torch-free dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SamplerName: TypeAlias = Literal["unipc", "euler"]
Stage: TypeAlias = Literal["encode", "denoise", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpec:
    """Pixel geometry of a film: width and height in pixels, num_frames in frames, fps in frames a second."""

    width: int
    height: int
    num_frames: int
    fps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeKey:
    """Requests with equal keys may share one transformer call; any difference keeps them apart."""

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    sampler: SamplerName
    flow_shift: float
    guided: bool

    def __str__(self) -> str:
        guided = "cfg" if self.guided else "nocfg"
        return (
            f"{self.width}x{self.height}x{self.num_frames}-{self.num_inference_steps}"
            f"-{self.sampler}-{self.flow_shift:g}-{guided}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One film, wholly determined: the same request on the same engine gives the same latents.

    `guidance_scale` follows diffusers' convention (v_uncond + w * (v_cond - v_uncond)); 1.0 or less means unguided.
    """

    request_id: str
    prompt: str
    negative_prompt: str = ""
    spec: VideoSpec
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float
    sampler: SamplerName
    seed: int

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1.0

    @property
    def shape_key(self) -> ShapeKey:
        return ShapeKey(
            width=self.spec.width,
            height=self.spec.height,
            num_frames=self.spec.num_frames,
            num_inference_steps=self.num_inference_steps,
            sampler=self.sampler,
            flow_shift=self.flow_shift,
            guided=self.guided,
        )


class MemoryRung(IntEnum):
    """How sparing of memory a film is made; a lower rung does what those above it do, too.

    WHOLE: as fast as it goes. TILED: no padding rows, and decoded in overlapping tiles, which are blended: pixels
    differ a little from an undivided picture's. OFFLOADED: what a stage does not need waits in host memory, on an
    accelerator.
    """

    WHOLE = 0
    TILED = 1
    OFFLOADED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """A request enters a stage of the pipeline."""

    request_id: str
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """One denoising step of a request is complete; `step` counts from 1 to `num_steps`."""

    request_id: str
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledEvent:
    """The request was cancelled between two steps and yields no result."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """A finished film.

    `frames` is uint8 [F, H, W, 3]; `latents` is float32 [C, T, h, w], as the last step left them (still normalised,
    what the VAE is given after de-normalisation); `rung` is how sparing of memory it was made; `seconds` maps each
    stage to wall seconds of the whole batch.
    """

    request: GenerationRequest
    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]
    rung: MemoryRung = MemoryRung.WHOLE
    seconds: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol):
    """A judge of films, for whoever builds an engine; post-training has them."""

    name: str

    def score(self, frames: Sequence[NDArray[np.uint8]], prompts: Sequence[str], *, fps: int) -> list[float]:
        """A number for each film, uint8 [F, H, W, 3], made for its prompt; more is better."""
        ...


EngineEvent: TypeAlias = StageEvent | StepEvent | CancelledEvent | GenerationResult
IsCancelled: TypeAlias = Callable[[str], bool]
