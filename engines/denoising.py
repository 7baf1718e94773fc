"""The denoising loop of one batch: explicit state in, explicit state out, one transformer call a step for all rows.

B batch, C channels, T latent frames, H W latent size.

Rows are laid out as [conditional rows | unconditional rows], each half `bucket` rows long: the requests first, then
padding rows that no one looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from engines.backends import Backend
from engines.family import EncodedText, Family, PromptEncoder, empty_text, joined
from engines.samplers import Sampler, SamplerState, find_sampler
from engines.samplers.guidance import Velocity
from engines.samplers.stochastic import GaussianStep, Transition
from engines.step_reuse import ComputedStep, StepReuse, extrapolated
from engines.types import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """A batch between two steps. `condition` is of `bucket` rows, twice that when guided; `scales` is [bucket].

    With a `reuse` the last two steps that were computed are kept.
    """

    sampler: Sampler
    state: SamplerState
    condition: Any
    guided: bool
    scales: torch.Tensor
    reuse: StepReuse | None = None
    computed: tuple[ComputedStep, ...] = ()

    @property
    def steps_done(self) -> int:
        return self.state.index

    @property
    def finished(self) -> bool:
        return self.state.index == self.state.schedule.num_steps


def encode_batch(encoder: PromptEncoder, requests: Sequence[GenerationRequest], bucket: int) -> EncodedText:
    """The text of a batch in the layout above; unguided requests have no unconditional half."""
    halves = [[request.prompt for request in requests]]
    if requests[0].guided:
        halves.append([request.negative_prompt for request in requests])
    encoded = [encoder.encode(prompts) for prompts in halves]
    empty = bucket - len(requests)
    if empty:
        encoded = [joined([half, empty_text(half, empty)]) for half in encoded]
    return joined(encoded)


@torch.inference_mode()
def start(
    family: Family,
    backend: Backend,
    requests: Sequence[GenerationRequest],
    text: EncodedText,
    bucket: int,
    sampler: Sampler | None = None,
    reuse: StepReuse | None = None,
) -> Denoising:
    """The batch before its first step: each row's noise comes from its own seed, padding rows are zero.

    The sampler is the requests' own unless another is given; `reuse` names steps that are not computed.
    """
    first = requests[0]
    shape_CTHW = family.latent_shape(first.spec)
    rows = [noise(request.seed, shape_CTHW) for request in requests]
    rows += [torch.zeros(shape_CTHW)] * (bucket - len(requests))
    sampler = sampler or find_sampler(first.sampler)
    schedule = sampler.schedule(first.num_inference_steps, first.flow_shift)
    scales = [request.guidance_scale for request in requests] + [1.0] * (bucket - len(requests))
    return Denoising(
        sampler=sampler,
        state=sampler.start(torch.stack(rows).to(family.device), schedule),
        condition=backend.condition(text),
        guided=first.guided,
        scales=torch.tensor(scales, dtype=torch.float32, device=family.device),
        reuse=reuse,
    )


@torch.inference_mode()
def step(batch: Denoising, backend: Backend) -> Denoising:
    """One step: one transformer call over all rows, or none where it is reused, guidance row by row, one update."""
    if batch.reuse is None:
        return replace(batch, state=backend.advance(batch.sampler, batch.state, velocity_of(batch, backend)))
    schedule, index, computed = batch.state.schedule, batch.state.index, batch.computed
    sigma = float(schedule.sigmas[index])
    if batch.reuse.at(index, schedule.num_steps):
        first, second = computed
        velocity = extrapolated(first, second, sigma)
    else:
        velocity = velocity_of(batch, backend)
        computed = (*computed[-1:], ComputedStep(sigma=sigma, velocity=velocity))
    return replace(batch, state=backend.advance(batch.sampler, batch.state, velocity), computed=computed)


@torch.no_grad()
def stochastic_step(
    batch: Denoising, backend: Backend, gaussian: GaussianStep, noise_BCTHW: torch.Tensor, rows: torch.Tensor
) -> tuple[Denoising, Transition]:
    """One step in which `rows` (bool [B]) draw their next latents from a Gaussian, and the others go on as in `step`.

    The transition of all rows comes back with the batch; of a row that drew nothing it says what a draw would have
    been. Nothing in it is an inference tensor, so that gradients can be taken through its replay.
    """
    velocity = velocity_of(batch, backend)
    before = batch.state.latents.clone()
    drawn, log_probability = gaussian.draw(before, velocity, noise_BCTHW)
    state = backend.advance(batch.sampler, batch.state, velocity)
    after = torch.where(rows.view(-1, 1, 1, 1, 1), drawn, state.latents)
    transition = Transition(
        index=batch.state.index,
        gaussian=gaussian,
        before=before,
        after=drawn,
        velocity=velocity.guided(),
        log_probability=log_probability,
    )
    return replace(batch, state=replace(state, latents=after)), transition


def velocity_of(batch: Denoising, backend: Backend) -> Velocity:
    """What the transformer says of the latents that the batch stands on, at the time of its next step.

    The one way from latents to a velocity: a film's steps, a policy's draws and their replay with gradients take it.
    """
    latents_BCTHW = batch.state.latents
    timestep = batch.state.schedule.timesteps[batch.state.index]
    if not batch.guided:
        return Velocity(conditional=backend.velocity(latents_BCTHW, timestep, batch.condition))
    velocity_BCTHW = backend.velocity(torch.cat([latents_BCTHW, latents_BCTHW]), timestep, batch.condition)
    cond_BCTHW, uncond_BCTHW = velocity_BCTHW.chunk(2)
    return Velocity(conditional=cond_BCTHW, unconditional=uncond_BCTHW, scales=batch.scales)


def noise(seed: int, shape_CTHW: tuple[int, int, int, int]) -> torch.Tensor:
    """What a seed means: standard normal float32 [C, T, H, W] of torch's CPU generator, on whatever device it is used.

    Drawn as [1, C, T, H, W], which is what stock `WanPipeline` draws for `torch.Generator("cpu").manual_seed(seed)`.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, *shape_CTHW), generator=generator, dtype=torch.float32)[0]
