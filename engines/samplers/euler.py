"""Euler's method on the flow: x' = x + (sigma' - sigma) * v.

B batch, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from engines.samplers.base import Sampler, SamplerState, Schedule
from engines.samplers.sigmas import euler_schedule


class Euler:
    """First order, one velocity a step; equals diffusers' `FlowMatchEulerDiscreteScheduler`."""

    def schedule(self, num_steps: int, flow_shift: float) -> Schedule:
        return euler_schedule(num_steps, flow_shift)

    def start(self, noise_BCTHW: torch.Tensor, schedule: Schedule) -> SamplerState:
        return SamplerState(schedule=schedule, index=0, latents=noise_BCTHW)

    def step(self, state: SamplerState, velocity_BCTHW: torch.Tensor) -> SamplerState:
        sigmas = state.schedule.sigmas
        change = (sigmas[state.index + 1] - sigmas[state.index]).item()
        return replace(state, index=state.index + 1, latents=state.latents + change * velocity_BCTHW)


@dataclass(frozen=True, slots=True)
class EulerOn(Euler):
    """Euler's steps on the noise levels of another sampler, so that a policy learns at the levels it is served at."""

    grid: Sampler

    def schedule(self, num_steps: int, flow_shift: float) -> Schedule:
        return self.grid.schedule(num_steps, flow_shift)
