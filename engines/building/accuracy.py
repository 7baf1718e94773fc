"""How far an engine's films are from the reference's of the same prompts and seeds: latents step by step, and frames.

F frames, H W pixels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from engines.engine import Engine
from engines.recipes.probes import Probes
from engines.recipes.recipe import Budget
from engines.types import GenerationRequest, GenerationResult, Scorer, VideoSpec

# What is told of two equal pictures, whose PSNR has no bound.
_EQUAL_PSNR = 99.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFilm:
    """One film of a probe, with the latents [steps, C, T, h, w] that each step left."""

    request: GenerationRequest
    latents: torch.Tensor
    result: GenerationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """An engine beside the reference. `latent_errors` has one relative error a step, the largest of all films.

    `psnr` (dB) and `ssim` are those of the worst film; `scores` has each scorer's mean for engine and reference.
    """

    films: int
    latent_errors: tuple[float, ...]
    psnr: float
    ssim: float
    scores: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "films": self.films,
            "latent_errors": list(self.latent_errors),
            "psnr": self.psnr,
            "ssim": self.ssim,
            "scores": {name: {"engine": own, "reference": other} for name, (own, other) in self.scores.items()},
        }

    def faults(self, budget: Budget) -> list[str]:
        """What is beyond the budget, in words; a figure that is not finite is."""
        worst = max(self.latent_errors)
        found = []
        if not worst <= budget.latent_error:
            step = self.latent_errors.index(worst) + 1
            found.append(f"latents are off by {worst:.3g} after step {step}, {budget.latent_error:g} is allowed")
        if not self.psnr >= budget.psnr:
            found.append(f"frames have a PSNR of {self.psnr:.1f} dB, {budget.psnr:g} is asked for")
        if not self.ssim >= budget.ssim:
            found.append(f"frames have an SSIM of {self.ssim:.4f}, {budget.ssim:g} is asked for")
        for name, (own, other) in self.scores.items():
            if not own >= other - budget.score_drop * abs(other):
                found.append(
                    f"{name} scores {own:.4f} where the reference has {other:.4f}, "
                    f"a drop of {100 * budget.score_drop:g} % is allowed"
                )
        return found


def probe_films(engine: Engine, probes: Probes) -> list[ProbeFilm]:
    """The films of `probes` at the model's default size, each made alone."""
    wanted = [probe_request(engine, prompt, seed, probes) for prompt in probes.prompts for seed in probes.seeds]
    return [_traced(engine, request) for request in wanted]


def compared(own: Sequence[ProbeFilm], reference: Sequence[ProbeFilm], scorers: Sequence[Scorer]) -> Accuracy:
    """The films of an engine beside those of the reference, in the same order."""
    errors = [_relative(a.latents, b.latents) for a, b in zip(own, reference, strict=True)]
    frames = [(a.result.frames, b.result.frames) for a, b in zip(own, reference, strict=True)]
    return Accuracy(
        films=len(own),
        latent_errors=tuple(max(each) for each in zip(*errors, strict=True)),
        psnr=min(psnr(a, b) for a, b in frames),
        ssim=min(ssim(a, b) for a, b in frames),
        scores={scorer.name: (_mean_score(scorer, own), _mean_score(scorer, reference)) for scorer in scorers},
    )


def cost_of(films: Sequence[ProbeFilm]) -> dict[str, Any]:
    """Seconds of the stages of such a film, the median of `films`; of one step for `denoise`."""
    first = films[0].request
    stages = {stage: statistics.median(f.result.seconds[stage] for f in films) for stage in films[0].result.seconds}
    return {
        "shape": f"{first.spec.width}x{first.spec.height}x{first.spec.num_frames}",
        "rows": 2 if first.guided else 1,
        "films": len(films),
        "encode": stages["encode"],
        "step": stages["denoise"] / first.num_inference_steps,
        "decode": stages["decode"],
    }


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal to noise in dB of frames uint8 [F, H, W, 3] beside others."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return _EQUAL_PSNR if error == 0 else min(_EQUAL_PSNR, 10 * math.log10(255**2 / error))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of frames uint8 [F, H, W, 3], the mean (Wang et al., IEEE TIP 13(4), 2004).

    Windows are Gaussian, 11 pixels wide, with a deviation of 1.5, on each colour.
    """
    x, y = (torch.from_numpy(z).permute(0, 3, 1, 2).flatten(0, 1)[:, None].double() for z in (a, b))
    at = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-at.square() / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def blurred(z: torch.Tensor) -> torch.Tensor:
        return F.conv2d(z, window)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    both = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(values.mean())


def _traced(engine: Engine, request: GenerationRequest) -> ProbeFilm:
    steps: list[torch.Tensor] = []
    events = engine.generate([request], watch=lambda _, latents: steps.append(latents[0].float().cpu().clone()))
    (result,) = [event for event in events if isinstance(event, GenerationResult)]
    return ProbeFilm(request=request, latents=torch.stack(steps), result=result)


def probe_request(engine: Engine, prompt: str, seed: int, probes: Probes) -> GenerationRequest:
    """A film of `probes` at the model's default size."""
    d = engine.card.defaults
    return GenerationRequest(
        request_id=f"probe {seed}",
        prompt=prompt,
        negative_prompt=d.negative_prompt,
        spec=VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps),
        num_inference_steps=probes.num_inference_steps or d.num_inference_steps,
        guidance_scale=d.guidance_scale,
        flow_shift=d.flow_shift,
        sampler=d.sampler,
        seed=seed,
    )


def _relative(own: torch.Tensor, other: torch.Tensor) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(own, other, strict=True)]


def _mean_score(scorer: Scorer, films: Sequence[ProbeFilm]) -> float:
    frames, prompts = [f.result.frames for f in films], [f.request.prompt for f in films]
    return statistics.fmean(scorer.score(frames, prompts, fps=films[0].request.spec.fps))
