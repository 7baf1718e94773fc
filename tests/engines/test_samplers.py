"""Samplers and schedules give diffusers' numbers, to the last bit where the velocities are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from engines.errors import UnknownName
from engines.samplers import SAMPLERS, find_sampler
from engines.samplers.guidance import guided_velocity

STEPS = (1, 2, 3, 4, 7, 20, 50)
SHIFTS = (0.5, 1.0, 3.0, 8.0)


def scheduler(name: str, flow_shift: float) -> Any:
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=flow_shift)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)


def velocity(latents_BCTHW: torch.Tensor, time: float) -> torch.Tensor:
    """Any smooth field that depends on place and time."""
    return torch.tanh(latents_BCTHW * 1.3 + time / 500) - latents_BCTHW


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("flow_shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
def test_schedules_are_diffusers(name: str, flow_shift: float, steps: int) -> None:
    """Sigmas and timesteps are those of diffusers' scheduler, bit for bit and in its types."""
    theirs = scheduler(name, flow_shift)
    theirs.set_timesteps(steps)
    ours = find_sampler(name).schedule(steps, flow_shift)
    assert torch.equal(ours.sigmas, theirs.sigmas)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert ours.timesteps.dtype == theirs.timesteps.dtype
    assert ours.num_steps == steps


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("flow_shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
def test_steps_are_diffusers(name: str, flow_shift: float, steps: int) -> None:
    """A whole run on a known field ends in diffusers' latents, bit for bit."""
    theirs, sampler = scheduler(name, flow_shift), find_sampler(name)
    theirs.set_timesteps(steps)
    theirs.set_begin_index(0)
    latents = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(steps))
    state = sampler.start(latents, sampler.schedule(steps, flow_shift))
    for time in theirs.timesteps:
        latents = theirs.step(velocity(latents, float(time)), time, latents, return_dict=False)[0]
        state = sampler.step(state, velocity(state.latents, float(time)))
        assert torch.equal(state.latents, latents)
    assert state.index == steps
    assert torch.isfinite(state.latents).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_leaves_the_state_it_came_from(name: str) -> None:
    """A step is pure: done again from the same state it gives the same latents, and the old ones are untouched."""
    sampler = find_sampler(name)
    state = sampler.start(torch.randn(1, 2, 1, 2, 2), sampler.schedule(4, 3.0))
    for time in (900.0, 700.0):
        kept = state.latents.clone()
        first, second = (sampler.step(state, velocity(state.latents, time)) for _ in range(2))
        assert torch.equal(first.latents, second.latents)
        assert torch.equal(state.latents, kept)
        state = first


@pytest.mark.parametrize("name", SAMPLERS)
def test_rows_are_independent(name: str) -> None:
    """A row of a batch is, bit for bit, what it is alone."""
    sampler = find_sampler(name)
    noise = torch.randn(5, 3, 2, 5, 7)
    schedule = sampler.schedule(5, 3.0)

    def run(start: torch.Tensor) -> torch.Tensor:
        state = sampler.start(start, schedule)
        while state.index < schedule.num_steps:
            state = sampler.step(state, -state.latents * 0.5)
        return state.latents

    together = run(noise)
    for row in range(5):
        assert torch.equal(together[row : row + 1], run(noise[row : row + 1]))


def test_guidance_has_a_scale_for_each_row() -> None:
    """Each row is guided by its own scale, and a scale of 1 is the conditional velocity."""
    cond, uncond = torch.randn(3, 2, 1, 2, 2), torch.randn(3, 2, 1, 2, 2)
    mixed = guided_velocity(cond, uncond, torch.tensor([1.0, 3.0, 0.0]))
    torch.testing.assert_close(mixed[0], cond[0])
    assert torch.equal(mixed[1], uncond[1] + 3.0 * (cond[1] - uncond[1]))
    assert torch.equal(mixed[2], uncond[2])


def test_an_unknown_sampler_is_told_with_the_known() -> None:
    """The error for a wrong name lists the right ones."""
    with pytest.raises(UnknownName, match=r"'dpm'.*euler, unipc"):
        find_sampler("dpm")
