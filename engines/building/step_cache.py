"""Which steps of a film bear to be extrapolated: the error of whole films when one step alone is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from engines import denoising
from engines.building.accuracy import probe_request
from engines.denoising import Denoising
from engines.engine import Engine
from engines.errors import BuildRefused
from engines.recipes.recipe import StepCache
from engines.step_reuse import StepReuse

_FIRST = 2  # before it there are no two steps to draw a line through


def reuse_for(engine: Engine, wanted: StepCache) -> tuple[StepReuse, dict[str, Any]]:
    """The steps to be extrapolated, and a report: every step's error by itself."""
    errors = film_errors(engine, wanted)
    num_steps = max(errors) + 1
    chosen = bearable_steps(errors, wanted.film_error)
    report = {"num_steps": num_steps, "reused": sorted(chosen), "errors": [[k, errors[k]] for k in sorted(errors)]}
    return StepReuse(num_steps=num_steps, steps=chosen), report


def film_errors(engine: Engine, wanted: StepCache) -> dict[int, float]:
    """By step the relative error of the last latents when its velocity is extrapolated; the largest of all films."""
    probes = wanted.calibration
    found: dict[int, float] = {}
    for prompt in probes.prompts:
        for seed in probes.seeds:
            for step, error in _errors_of(engine, denoising_of(engine, prompt, seed, wanted)).items():
                found[step] = max(error, found.get(step, 0.0))
    return found


def denoising_of(engine: Engine, prompt: str, seed: int, wanted: StepCache) -> Denoising:
    """A film of the calibration before its first step."""
    request = probe_request(engine, prompt, seed, wanted.calibration)
    text = denoising.encode_batch(engine.family, [request], 1)
    return denoising.start(engine.family, engine.backend, [request], text, 1)


def bearable_steps(errors: Mapping[int, float], film_error: float) -> frozenset[int]:
    """As many steps as can be, no two of them neighbours, with the root of their squared errors within the bound.

    Of all choices of so many the one of the least error.
    """
    # By how many are chosen and whether the last step is: the least sum of squares, and the steps.
    best: dict[tuple[int, bool], tuple[float, frozenset[int]]] = {(0, False): (0.0, frozenset())}
    for step in sorted(errors):
        found: dict[tuple[int, bool], tuple[float, frozenset[int]]] = {}
        for (count, _), (total, chosen) in best.items():
            options = [((count, False), (total, chosen))]
            if step - 1 not in chosen:
                options.append(((count + 1, True), (total + errors[step] ** 2, chosen | {step})))
            for key, option in options:
                found[key] = min(found.get(key, option), option, key=lambda o: o[0])
        best = found
    within = [(count, -total, chosen) for (count, _), (total, chosen) in best.items() if total <= film_error**2]
    return max(within, key=lambda w: w[:2])[2]


@torch.inference_mode()
def _errors_of(engine: Engine, batch: Denoising) -> dict[int, float]:
    num_steps = batch.state.schedule.num_steps
    before: list[Denoising] = []
    watched = replace(batch, reuse=StepReuse(num_steps=num_steps, steps=frozenset()))
    while not watched.finished:
        before.append(watched)
        watched = denoising.step(watched, engine.backend)
    whole = watched.state.latents
    errors = {}
    for index in range(_FIRST, num_steps):
        # Up to this step it is the same film.
        other = replace(before[index], reuse=StepReuse(num_steps=num_steps, steps=frozenset({index})))
        while not other.finished:
            other = denoising.step(other, engine.backend)
        errors[index] = float((other.state.latents - whole).norm() / whole.norm())
    broken = sorted(k for k, error in errors.items() if not math.isfinite(error))
    if broken:
        raise BuildRefused(
            f"the latents are not finite when step {broken[0] + 1} is extrapolated; leave out step_cache"
        )
    return errors
