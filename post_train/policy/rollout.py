"""Films with what their draws remember, by the engine's own denoising loop, and the replay of a draw with gradients.

B batch, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines import denoising
from engines.denoising import Denoising
from engines.engine import Engine
from engines.family import EncodedText, joined
from engines.prompt_cache import PromptCache
from engines.samplers import EulerOn, find_sampler
from engines.samplers.base import SamplerState, Schedule
from engines.samplers.guidance import Velocity
from engines.samplers.stochastic import GaussianStep
from engines.types import GenerationRequest, SamplerName, VideoSpec
from post_train.distributed import ALONE, Ranks
from post_train.policy.backend import KeptText, LearningBackend
from post_train.policy.plan import PlannedFilm
from post_train.policy.steps import StepRule, check_levels, drawing_steps
from post_train.random_numbers import generator_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a policy makes films: `steps` of the served sampler's noise levels, `guidance` 1 for none."""

    steps: int
    guidance: float
    flow_shift: float
    sampler: SamplerName
    negative_prompt: str
    spec: VideoSpec

    @property
    def guided(self) -> bool:
        return self.guidance > 1

    @property
    def schedule(self) -> Schedule:
        """The noise levels that are served."""
        return find_sampler(self.sampler).schedule(self.steps, self.flow_shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One drawn step of one film [C, T, H, W], with the log-probability that it was drawn with."""

    film: int
    index: int
    before: Tensor
    after: Tensor
    velocity: Tensor
    log_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledOut:
    """A film that was rolled out: its place in the plan, the clean latents, and the draws that are learnt from."""

    film: int
    latents: Tensor
    draws: tuple[Draw, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Draws of one step under the present weights, with gradients: log-probability [B], guided velocity, Gaussian."""

    log_probability: Tensor
    velocity: Tensor
    gaussian: GaussianStep


class Policy:
    """A learning model that makes films by the engine's loop and replays its draws by the same function."""

    def __init__(
        self,
        engine: Engine,
        backend: LearningBackend,
        sampling: Sampling,
        rule: StepRule | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.engine, self.backend, self.sampling, self.rule = engine, backend, sampling, rule
        self.ranks = ranks
        self.schedule = sampling.schedule
        self.sigmas = [float(s) for s in self.schedule.sigmas]
        check_levels(self.sigmas)
        self.drawing = () if rule is None else drawing_steps(rule, self.sigmas)
        self.forwards = 0
        """Transformer rows computed on this rank so far; a row with gradients counts three."""
        self._prompts = PromptCache(engine.family)

    def gaussian(self, index: int) -> GaussianStep:
        """The rule's Gaussian at a step."""
        if self.rule is None:
            raise ValueError("this policy makes films without drawing; it has no step rule")
        return self.rule.gaussian(self.sigmas, index)

    def roll_out(self, films: Sequence[PlannedFilm], first: int) -> list[RolledOut]:
        """Makes films of one batch, numbered from `first` on."""
        family = self.engine.family
        requests = [self._request(film) for film in films]
        # Drawing films step by Euler on the served levels: a multistep sampler's history would not survive a draw.
        sampler = EulerOn(find_sampler(self.sampling.sampler)) if self.rule else None
        text = self.text([film.prompt for film in films])
        batch = denoising.start(family, self.backend, requests, text, len(requests), sampler)
        draws: list[list[Draw]] = [[] for _ in films]
        while not batch.finished:
            index = batch.state.index
            rows = [self.rule is not None and index in film.steps.drawn for film in films]
            drawing = any(rows)
            batch = self._drawn(batch, films, rows, draws, first) if drawing else denoising.step(batch, self.backend)
            self.forwards += len(films) * (2 if self.sampling.guided else 1)
        with torch.inference_mode(mode=False):
            latents = batch.state.latents.clone()
        return [RolledOut(film=first + row, latents=latents[row], draws=tuple(draws[row])) for row in range(len(films))]

    def _drawn(
        self,
        batch: Denoising,
        films: Sequence[PlannedFilm],
        rows: list[bool],
        draws: list[list[Draw]],
        first: int,
    ) -> Denoising:
        index, latents = batch.state.index, batch.state.latents
        noise = torch.stack([_noise_of(film, index, latents.shape[1:]) for film in films]).to(latents.device)
        picked = torch.tensor(rows, device=latents.device)
        batch, seen = denoising.stochastic_step(batch, self.backend, self.gaussian(index), noise, picked)
        for row, film in enumerate(films):
            if index in film.steps.learnt:
                draws[row].append(
                    Draw(
                        film=first + row,
                        index=index,
                        before=seen.before[row],
                        after=seen.after[row],
                        velocity=seen.velocity[row],
                        log_probability=float(seen.log_probability[row]),
                    )
                )
        return batch

    def replay(self, draws: Sequence[Draw], prompts: Sequence[str]) -> Replayed:
        """Draws of one step once more, under the present weights; gradients are recorded where they are enabled.

        ValueError for draws of different steps, whose Gaussians differ.
        """
        index = draws[0].index
        if any(d.index != index for d in draws):
            raise ValueError(f"draws of steps {sorted({d.index for d in draws})} cannot be replayed together")
        before = torch.stack([d.before for d in draws])
        velocity = self.velocity(before, index, prompts)
        gaussian = self.gaussian(index)
        after = torch.stack([d.after for d in draws])
        return Replayed(
            log_probability=gaussian.log_probability(before, velocity, after),
            velocity=velocity.guided(),
            gaussian=gaussian,
        )

    def velocity(self, latents: Tensor, index: int, prompts: Sequence[str]) -> Velocity:
        """The velocity at step `index` from `latents` [B, C, T, H, W], by the loop's own function."""
        condition: KeptText = self.backend.condition(self.text(prompts))
        scales = torch.full((len(prompts),), self.sampling.guidance, device=latents.device)
        rows = len(prompts) * (2 if self.sampling.guided else 1)
        self.forwards += rows * (3 if torch.is_grad_enabled() else 1)
        batch = Denoising(
            sampler=EulerOn(find_sampler(self.sampling.sampler)),
            state=SamplerState(schedule=self.schedule, index=index, latents=latents),
            condition=condition,
            guided=self.sampling.guided,
            scales=scales,
        )
        return denoising.velocity_of(batch, self.backend)

    def text(self, prompts: Sequence[str]) -> EncodedText:
        """The batch's text as the loop lays it out."""
        halves = [list(prompts), *([[self.sampling.negative_prompt] * len(prompts)] if self.sampling.guided else [])]
        return joined([self._prompts.encode(half) for half in halves])

    def _request(self, film: PlannedFilm) -> GenerationRequest:
        s = self.sampling
        return GenerationRequest(
            request_id=f"{film.group}",
            prompt=film.prompt,
            negative_prompt=s.negative_prompt,
            spec=s.spec,
            num_inference_steps=s.steps,
            guidance_scale=s.guidance,
            flow_shift=s.flow_shift,
            sampler=s.sampler,
            seed=film.seed,
        )


def _noise_of(film: PlannedFilm, index: int, shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=generator_of(f"{film.draw_seed}:{index}"))
