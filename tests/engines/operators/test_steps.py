"""A step by one operator is the sampler's own step at the guided velocity."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engines.operators.steps import advanced
from engines.samplers import SAMPLERS, Euler, Sampler, Schedule, find_sampler
from engines.samplers.guidance import Velocity
from kernels.dispatch import recorded

_SHAPE = (2, 3, 2, 4, 4)


def _velocity(latents: torch.Tensor, index: int, *, guided: bool) -> Velocity:
    """Some velocity that depends on where it is asked, and a scale of its own for each film."""
    conditional = torch.tanh(latents + 0.1 * index)
    if not guided:
        return Velocity(conditional=conditional)
    return Velocity(conditional=conditional, unconditional=-0.3 * latents, scales=torch.tensor([1.5, 4.0]))


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_the_samplers(name: str, steps: int, guided: bool) -> None:
    """From the same state the latents agree to the last digits, at every step and order, and so do whole runs."""
    sampler = find_sampler(name)
    noise = torch.randn(_SHAPE, generator=torch.Generator().manual_seed(steps))
    schedule = sampler.schedule(steps, 3.0)
    own = one = sampler.start(noise, schedule)
    for index in range(steps):
        velocity = _velocity(own.latents, index, guided=guided)
        again = advanced(sampler, own, velocity)
        own = sampler.step(own, velocity.guided())
        torch.testing.assert_close(again.latents, own.latents, rtol=2e-6, atol=2e-6)
        with recorded() as ran:
            one = advanced(sampler, one, _velocity(one.latents, index, guided=guided))
        assert [operator for operator, _ in ran] == [f"{name}_step"]
        assert one.index == own.index == index + 1
    torch.testing.assert_close(one.latents, own.latents, rtol=1e-5, atol=1e-5)


class _Halved:
    """A sampler that no operator knows."""

    schedule, start = Euler().schedule, Euler().start

    def step(self, state: Any, velocity_BCTHW: torch.Tensor) -> Any:
        return Euler().step(state, 0.5 * velocity_BCTHW)


def test_another_sampler_steps_itself() -> None:
    """No operator runs, and the step is its own."""
    sampler: Sampler = _Halved()
    schedule: Schedule = sampler.schedule(2, 1.0)
    state = sampler.start(torch.ones(_SHAPE), schedule)
    velocity = _velocity(state.latents, 0, guided=True)
    with recorded() as ran:
        got = advanced(sampler, state, velocity)
    assert ran == []
    assert torch.equal(got.latents, sampler.step(state, velocity.guided()).latents)
