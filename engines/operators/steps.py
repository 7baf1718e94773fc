"""Guidance and a sampler's step by one operator, which reads and writes each tensor of latents once.

B batch, C channels, T latent frames, H W latent size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engines.samplers import Euler, Sampler, SamplerState, UniPC
from engines.samplers.guidance import Velocity
from engines.samplers.unipc import ORDER, UniPCState, linear_form
from kernels.flow_step import euler_step, unipc_step


def advanced(sampler: Sampler, state: Any, velocity: Velocity) -> Any:
    """The state that `sampler.step` gives at the guided velocity; a sampler that no operator knows steps itself."""
    match sampler:
        case Euler():
            return _euler(state, velocity)
        case UniPC():
            return _unipc(state, velocity)
        case _:
            return sampler.step(state, velocity.guided())


def _euler(state: SamplerState, velocity: Velocity) -> SamplerState:
    sigmas = state.schedule.sigmas
    change = (sigmas[state.index + 1] - sigmas[state.index]).item()
    latents = euler_step(state.latents, *velocity.parts, change=change)
    return replace(state, index=state.index + 1, latents=latents)


def _unipc(state: UniPCState, velocity: Velocity) -> UniPCState:
    # What a coefficient of zero stands before is read all the same, so it must be there.
    newest = state.cleans[-1] if state.cleans else state.latents
    older = state.cleans[0] if len(state.cleans) == ORDER else newest
    clean, here, following = unipc_step(
        state.latents,
        *velocity.parts,
        before=state.latents if state.before is None else state.before,
        newest=newest,
        older=older,
        coefficients=linear_form(state),
    )
    return UniPCState(
        schedule=state.schedule,
        index=state.index + 1,
        latents=following,
        cleans=(*state.cleans, clean)[-ORDER:],
        before=here,
    )
