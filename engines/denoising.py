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
from engines.family import EncodedText, Family, empty_text, joined
from engines.samplers import Sampler, SamplerState, find_sampler
from engines.samplers.guidance import Velocity
from engines.types import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """A batch between two steps. `condition` is of `bucket` rows, twice that when guided; `scales` is [bucket]."""

    sampler: Sampler
    state: SamplerState
    condition: Any
    guided: bool
    scales: torch.Tensor

    @property
    def steps_done(self) -> int:
        return self.state.index

    @property
    def finished(self) -> bool:
        return self.state.index == self.state.schedule.num_steps


def encode_batch(family: Family, requests: Sequence[GenerationRequest], bucket: int) -> EncodedText:
    """The text of a batch in the layout above; unguided requests have no unconditional half."""
    halves = [[request.prompt for request in requests]]
    if requests[0].guided:
        halves.append([request.negative_prompt for request in requests])
    encoded = [family.encode(prompts) for prompts in halves]
    empty = bucket - len(requests)
    if empty:
        encoded = [joined([half, empty_text(half, empty)]) for half in encoded]
    return joined(encoded)


@torch.inference_mode()
def start(
    family: Family, backend: Backend, requests: Sequence[GenerationRequest], text: EncodedText, bucket: int
) -> Denoising:
    """The batch before its first step: each row's noise comes from its own seed, padding rows are zero."""
    first = requests[0]
    shape_CTHW = family.latent_shape(first.spec)
    rows = [noise(request.seed, shape_CTHW) for request in requests]
    rows += [torch.zeros(shape_CTHW)] * (bucket - len(requests))
    sampler = find_sampler(first.sampler)
    schedule = sampler.schedule(first.num_inference_steps, first.flow_shift)
    scales = [request.guidance_scale for request in requests] + [1.0] * (bucket - len(requests))
    return Denoising(
        sampler=sampler,
        state=sampler.start(torch.stack(rows).to(family.device), schedule),
        condition=backend.condition(text),
        guided=first.guided,
        scales=torch.tensor(scales, dtype=torch.float32, device=family.device),
    )


@torch.inference_mode()
def step(batch: Denoising, backend: Backend) -> Denoising:
    """One step: one transformer call over all rows, guidance row by row, one sampler update."""
    latents_BCTHW = batch.state.latents
    timestep = batch.state.schedule.timesteps[batch.state.index]
    if batch.guided:
        velocity_BCTHW = backend.velocity(torch.cat([latents_BCTHW, latents_BCTHW]), timestep, batch.condition)
        cond_BCTHW, uncond_BCTHW = velocity_BCTHW.chunk(2)
        velocity = Velocity(conditional=cond_BCTHW, unconditional=uncond_BCTHW, scales=batch.scales)
    else:
        velocity = Velocity(conditional=backend.velocity(latents_BCTHW, timestep, batch.condition))
    return replace(batch, state=backend.advance(batch.sampler, batch.state, velocity))


def noise(seed: int, shape_CTHW: tuple[int, int, int, int]) -> torch.Tensor:
    """What a seed means: standard normal float32 [C, T, H, W] of torch's CPU generator, on whatever device it is used.

    Drawn as [1, C, T, H, W], which is what stock `WanPipeline` draws for `torch.Generator("cpu").manual_seed(seed)`.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, *shape_CTHW), generator=generator, dtype=torch.float32)[0]
