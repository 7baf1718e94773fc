"""Samplers by name."""

from __future__ import annotations

from engines.errors import UnknownName
from engines.samplers.base import Sampler, SamplerState, Schedule
from engines.samplers.euler import Euler, EulerOn
from engines.samplers.unipc import UniPC

__all__ = ["SAMPLERS", "Euler", "EulerOn", "Sampler", "SamplerState", "Schedule", "UniPC", "find_sampler"]

SAMPLERS: dict[str, Sampler] = {"euler": Euler(), "unipc": UniPC()}


def find_sampler(name: str) -> Sampler:
    """The sampler of that name; another name raises `UnknownName` with those there are."""
    if name not in SAMPLERS:
        raise UnknownName("sampler", name, SAMPLERS)
    return SAMPLERS[name]
