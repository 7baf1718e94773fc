"""What an engine package is built by: model, backend, the films it is for, and how far it may be from the reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engines.profile import ShapeProfile
from engines.quantization.spec import Quantization
from engines.recipes.probes import Probes


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How far an engine may be from the reference; a build beyond any of these fails.

    `latent_error` bounds the relative error of the latents after every step, `psnr` (in dB) and `ssim` bound the frames
    of every film from below, and `score_drop` bounds by how much a scorer's mean may fall, as a share of it.
    """

    latent_error: float
    psnr: float
    ssim: float
    score_drop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCache:
    """Steps are extrapolated, those of the least errors first, while films are off by an estimated `film_error`.

    Errors are relative ones of a film's last latents, measured on the films of `calibration`.
    """

    film_error: float
    calibration: Probes


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecipe:
    """One build. `model` is a name of the catalogue or a folder; `dtype` is what the transformer computes in.

    `probes` are the films that the engine is measured on, beside the reference's of the same prompts and seeds. `steps`
    is the number of denoising steps that the package takes unless it is asked for another; the model's own where None.
    `cuda_graphs` records what a GPU is asked to do, once for each shape of films.
    """

    name: str
    description: str
    model: str
    device: str
    backend: str
    dtype: str
    profile: ShapeProfile
    probes: Probes
    budget: Budget
    quantization: Quantization | None = None
    step_cache: StepCache | None = None
    steps: int | None = None
    cuda_graphs: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of it, for a manifest; its hash is the recipe's."""
        return asdict(self)
