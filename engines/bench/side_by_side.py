"""Our engine beside stock diffusers on this machine: the same weights, prompt and seed, stage by stage, in turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.bench.measured import Measured
from engines.bench.ours import Ours
from engines.bench.stock import StockWan
from engines.card import read_card
from engines.ratios import ratio_quartiles
from engines.threads import apply_threads
from engines.types import GenerationRequest, VideoSpec

PROMPT = "A red ball bounces up and down on a grassy meadow under a clear blue sky."
# A film takes many steps, so that fewer of them tell as much.
_FILM_SHARE = 3

Call = Callable[[], object]


def side_by_side(folder: Path, measured: Measured, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """`stages` and `end_to_end`: medians of both in milliseconds, and how many times as long stock takes.

    Ratios are medians over rounds, with quartiles. The two sides take turns within a round, after one that is not
    counted. ValueError for less than three rounds.
    """
    if rounds < 3:
        raise ValueError(f"--rounds is {rounds}; a median with its spread needs 3 or more")
    card = read_card(folder)
    d = card.defaults
    request = GenerationRequest(
        request_id="bench",
        spec=VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps),
        prompt=PROMPT,
        negative_prompt=d.negative_prompt,
        num_inference_steps=d.num_inference_steps,
        guidance_scale=d.guidance_scale,
        flow_shift=d.flow_shift,
        sampler=d.sampler,
        seed=7,
    )
    apply_threads()
    report("loading both")
    stock, ours = StockWan(folder, request), Ours(measured.folder, request, measured.backend)
    load = os.getloadavg()
    film, theirs = ours.film(), stock.film()
    latents = torch.from_numpy(film.latents)
    stages: dict[str, tuple[Call, Call]] = {
        "text": (ours.text, stock.text),
        "step": (ours.step, lambda: stock.step(ours.noise)),
        "decode": (lambda: ours.decode(latents), lambda: stock.decode(latents)),
    }
    return {
        "model": card.name,
        "engine": measured.name,
        "backend": measured.runs_by,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "film": f"{d.width}x{d.height}x{d.num_frames}, {d.num_inference_steps} steps",
        "frames_apart": float(np.abs(film.frames / 255 - theirs).max()),
        "stages": {
            name: _measured(*calls, rounds, lambda n, s=name: report(f"{s}, {n}")) for name, calls in stages.items()
        },
        "end_to_end": _measured(ours.film, stock.film, max(3, rounds // _FILM_SHARE), lambda n: report(f"films, {n}")),
        "load": [load[0], os.getloadavg()[0]],
    }


def _measured(ours: Call, stock: Call, rounds: int, report: Callable[[str], None]) -> dict[str, float | int]:
    for call in (ours, stock):
        call()
    own, theirs = [], []
    for n in range(rounds):
        report(f"round {n + 1} of {rounds}")
        own.append(_milliseconds(ours))
        theirs.append(_milliseconds(stock))
    return {
        "ours_ms": statistics.median(own),
        "stock_ms": statistics.median(theirs),
        **ratio_quartiles(own, theirs),
        "rounds": rounds,
    }


def _milliseconds(call: Call) -> float:
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)
