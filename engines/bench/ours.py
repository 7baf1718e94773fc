"""Our engine by the stages of `engines.bench.stock`, with any backend or of any package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines import denoising
from engines.engine import load_engine
from engines.family import EncodedText
from engines.types import GenerationRequest, GenerationResult


class Ours:
    """A model by a backend, or a package by its own, on the CPU with one request at its stages."""

    def __init__(self, folder: Path, request: GenerationRequest, backend: str | None) -> None:
        self._engine = load_engine(folder, backend=backend, device="cpu")
        self._family, self._backend = self._engine.family, self._engine.backend
        self._request = request
        self._batch = denoising.start(self._family, self._backend, [request], self.text(), 1)

    @property
    def noise(self) -> torch.Tensor:
        """What the request's seed draws, [1, C, T, H, W]: both sides start from it."""
        return self._batch.state.latents

    def text(self) -> EncodedText:
        """Both prompts encoded."""
        return denoising.encode_batch(self._family, [self._request], 1)

    def step(self) -> torch.Tensor:
        """The first step from noise: one transformer call for both prompts, guidance and the sampler.

        What is the same for every step (a prompt's keys) is computed in the first call and not again; it is part of
        `film`.
        """
        return denoising.step(self._batch, self._backend).state.latents

    def decode(self, latents_CTHW: torch.Tensor) -> NDArray[np.uint8]:
        """Frames, uint8 [F, H, W, 3]."""
        return self._family.decode(latents_CTHW).numpy()

    def film(self) -> GenerationResult:
        """Everything, from the prompt to frames."""
        made = self._engine.generate([self._request])
        return next(event for event in made if isinstance(event, GenerationResult))
