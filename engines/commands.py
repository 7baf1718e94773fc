"""Commands that engines bring to the `rushes` command line."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engines.card import ModelCard, read_card
from engines.catalog import find_model
from engines.errors import InvalidRequest
from engines.limits import check_request
from engines.types import (
    GenerationRequest,
    GenerationResult,
    SamplerName,
    Stage,
    StageEvent,
    StepEvent,
    VideoSpec,
)
from engines.video import VideoFormat, file_suffix, write_video

_FORMAT_OF_SUFFIX: dict[str, VideoFormat] = {".mp4": "mp4", ".webm": "webm"}
_STAGES = ("load", "encode", "denoise", "decode", "write", "total")
_FROM_CARD = "the model's own"


def generate(
    prompt: Annotated[str, typer.Option(help="What the film shall show.")],
    out: Annotated[Path, typer.Option(help="The file to write; its folder must exist.")],
    model: Annotated[str, typer.Option(help="Built-in name, local diffusers folder, or hub id.")] = "diorama",
    negative_prompt: Annotated[
        str | None, typer.Option(help="What it shall not show.", show_default=_FROM_CARD)
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default=_FROM_CARD)] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default=_FROM_CARD)] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames.", show_default=_FROM_CARD)] = None,
    fps: Annotated[int | None, typer.Option(help="Frames a second.", show_default=_FROM_CARD)] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default=_FROM_CARD)] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt; 1 is unguided.", show_default=_FROM_CARD)
    ] = None,
    flow_shift: Annotated[
        float | None, typer.Option(help="Above 1, more steps where the noise is high.", show_default=_FROM_CARD)
    ] = None,
    sampler: Annotated[SamplerName | None, typer.Option(help="How to integrate.", show_default=_FROM_CARD)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same film.", show_default="drawn")] = None,
    format: Annotated[  # noqa: A002  (the option's name)
        VideoFormat | None, typer.Option("--format", help="Container and codec.", show_default="by the file's ending")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="eager, or fused: by our operators.", show_default="eager, or a package's own")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object about the film.")] = False,
) -> None:
    """Make one film on this machine, without a server."""
    started = time.perf_counter()
    video_format = _choose_format(out, format)
    folder = find_model(model)
    card = read_card(folder)
    request = _request(
        card,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        flow_shift=flow_shift,
        sampler=sampler,
        seed=secrets.randbelow(2**32) if seed is None else seed,
    )
    check_request(request, card)

    with _Bars.shown() as bars:
        clock = _Clock()
        result = _generate(folder, backend, request, bars, clock)
        bars.enter("write")
        with clock.measure("write"):
            write_video(result.frames, out, fps=request.spec.fps, video_format=video_format)
    measured = {**clock.seconds, **result.seconds, "total": time.perf_counter() - started}
    seconds = {stage: measured[stage] for stage in _STAGES}
    _tell(_facts(request, card, out, seconds), as_json=json_output)


def _generate(
    folder: Path, backend: str | None, request: GenerationRequest, bars: _Bars, clock: _Clock
) -> GenerationResult:
    bars.enter("load")
    with clock.measure("load"):
        # Here, not above: torch takes seconds to import, and a wrong option should be told at once.
        from engines import load_engine  # noqa: PLC0415

        engine = load_engine(folder, backend=backend)
    for event in engine.generate([request]):
        if isinstance(event, StageEvent):
            bars.enter(event.stage)
        elif isinstance(event, StepEvent):
            bars.step(event)
        elif isinstance(event, GenerationResult):
            return event
    raise AssertionError("an engine ends a batch that nobody cancels with its results")


def _choose_format(out: Path, asked: VideoFormat | None) -> VideoFormat:
    """The format, by the file's ending unless asked for; checked with the folder before minutes are spent."""
    if out.is_dir():
        raise InvalidRequest("out", f"{out} is a folder; name a file in it")
    if not out.parent.is_dir():
        raise InvalidRequest("out", f"{out.parent} is not a folder; make it first")
    if not os.access(out.parent, os.W_OK):
        raise InvalidRequest("out", f"{out.parent} is not a folder that you may write to")
    suffix = out.suffix.lower()
    if asked is None:
        if suffix not in _FORMAT_OF_SUFFIX:
            raise InvalidRequest(
                "out", f"{out.name} ends in {suffix or 'nothing'!r}; end it in .mp4 or .webm, or give --format"
            )
        return _FORMAT_OF_SUFFIX[suffix]
    if suffix in _FORMAT_OF_SUFFIX and suffix != file_suffix(asked):
        raise InvalidRequest("out", f"{out.name} ends in {suffix}, but {asked} is a {file_suffix(asked)} file")
    return asked


def _request(card: ModelCard, **asked: Any) -> GenerationRequest:
    """The request with the card's default for whatever was not asked for."""
    chosen: dict[str, Any] = {
        name: getattr(card.defaults, name) if value is None else value for name, value in asked.items()
    }
    spec = VideoSpec(**{name: chosen.pop(name) for name in ("width", "height", "num_frames", "fps")})
    return GenerationRequest(request_id="film", spec=spec, **chosen)


def _facts(request: GenerationRequest, card: ModelCard, out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "path": str(out),
        "model": card.name,
        "seed": request.seed,
        "width": request.spec.width,
        "height": request.spec.height,
        "num_frames": request.spec.num_frames,
        "fps": request.spec.fps,
        "steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "sampler": request.sampler,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def _tell(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    seconds = facts["seconds"]
    stages = ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in _STAGES[:-1])
    sys.stdout.write(
        f"{facts['path']}: {facts['width']}x{facts['height']}, {facts['num_frames']} frames at {facts['fps']} fps, "
        f"seed {facts['seed']}, {seconds['total']:.1f} s ({stages})\n"
    )


class _Clock:
    """Seconds by stage, for the stages that the engine does not measure itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - started


@dataclass(slots=True)
class _Bars:
    """Progress on stderr: one line that names the stage, with a bar while it denoises."""

    progress: Progress
    task: TaskID

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[_Bars]:
        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield cls(progress, progress.add_task("", total=None, steps=""))

    def enter(self, stage: Stage | str) -> None:
        self.progress.update(self.task, description=stage, total=None, completed=0, steps="")

    def step(self, event: StepEvent) -> None:
        steps = f"{event.step}/{event.num_steps}"
        self.progress.update(self.task, total=event.num_steps, completed=event.step, steps=steps)
