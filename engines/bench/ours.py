"""Our engine by the stages of `engines.bench.stock`, with any backend."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines import denoising
from engines.backends import find_backend
from engines.card import ModelCard
from engines.engine import FAMILIES, Engine
from engines.family import EncodedText, Family
from engines.types import GenerationRequest, GenerationResult


class Ours:
    """An engine in fp32 on the CPU with one request at its stages."""

    def __init__(self, folder: Path, card: ModelCard, request: GenerationRequest, backend: str) -> None:
        module = importlib.import_module(FAMILIES[card.family])
        self._family: Family = module.load(folder, device=torch.device("cpu"), dtype=torch.float32)
        self._backend = find_backend(backend)(self._family)
        self._engine = Engine(card=card, family=self._family, backend=self._backend)
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
