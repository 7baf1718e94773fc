"""What a sampler is: pure functions from one explicit state to the next, so that a step can be batched and cancelled.

B batch, C channels, T latent frames, H W latent size.

All arithmetic is element by element with one coefficient for the whole batch, so rows never touch one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The noise levels of a whole run.

    `sigmas` is float32 [steps + 1] on the CPU, falling to 0; `timesteps` is what the transformer is told, [steps].
    """

    sigmas: torch.Tensor
    timesteps: torch.Tensor

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerState:
    """Where a batch is: `index` steps are done, and `latents` are float32 [B, C, T, H, W] at noise sigmas[index]."""

    schedule: Schedule
    index: int
    latents: torch.Tensor


class Sampler(Protocol):
    """One way to integrate the flow from noise to film."""

    def schedule(self, num_steps: int, flow_shift: float) -> Schedule:
        """The noise levels for a run of `num_steps` steps."""
        ...

    def start(self, noise_BCTHW: torch.Tensor, schedule: Schedule) -> Any:
        """The state before the first step."""
        ...

    def step(self, state: Any, velocity_BCTHW: torch.Tensor) -> Any:
        """The state after one step, given the (guided) velocity at `state.latents`."""
        ...
