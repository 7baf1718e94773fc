"""Flow-matching noise schedules, number for number as diffusers' schedulers give them.

The shift of SD3 (arXiv:2403.03206, equation 23), sigma' = s * sigma / (1 + (s - 1) * sigma), spends more steps where
the noise is high.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.samplers.base import Schedule

NUM_TRAIN_TIMESTEPS = 1000


def unipc_schedule(num_steps: int, flow_shift: float) -> Schedule:
    """As `UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=flow_shift)`: whole timesteps, rounded down."""
    even = np.linspace(1, 1 / NUM_TRAIN_TIMESTEPS, num_steps + 1)[:-1]
    sigmas = shifted(even, flow_shift)
    if abs(sigmas[0] - 1) < 1e-6:
        sigmas[0] -= 1e-6  # at exactly 1 the log-SNR of the first update is infinite
    timesteps = torch.from_numpy(sigmas * NUM_TRAIN_TIMESTEPS).to(torch.int64)
    return Schedule(sigmas=_ending_at_zero(sigmas.astype(np.float32)), timesteps=timesteps)


def euler_schedule(num_steps: int, flow_shift: float) -> Schedule:
    """As `FlowMatchEulerDiscreteScheduler(shift=flow_shift)`.

    The lowest noise is shifted twice there, once in float32 when it is built and once with the rest; so it is here.
    """
    lowest = torch.tensor(1.0, dtype=torch.float32) / NUM_TRAIN_TIMESTEPS
    sigma_min = float(flow_shift * lowest / (1 + (flow_shift - 1) * lowest))
    even = np.linspace(1.0 * NUM_TRAIN_TIMESTEPS, sigma_min * NUM_TRAIN_TIMESTEPS, num_steps) / NUM_TRAIN_TIMESTEPS
    sigmas = _ending_at_zero(shifted(even, flow_shift).astype(np.float32))
    return Schedule(sigmas=sigmas, timesteps=sigmas[:-1] * NUM_TRAIN_TIMESTEPS)


def shifted(sigmas: NDArray[np.float64], flow_shift: float) -> NDArray[np.float64]:
    """The flow shift applied to noise levels in float64."""
    return flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)


def _ending_at_zero(sigmas: NDArray[np.float32]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(sigmas), torch.zeros(1)])
