"""Which steps of each rollout draw, and which of those are learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Of one film: the steps that draw, and those of them that are learnt from, both rising."""

    drawn: tuple[int, ...]
    learnt: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.learnt or not set(self.learnt) <= set(self.drawn):
            raise ValueError(f"what is learnt from must have been drawn: {self.learnt} of {self.drawn}")


class Selector(Protocol):
    """A method's choice of steps."""

    @property
    def shared(self) -> bool:
        """Whether all films of a group have one choice."""
        ...

    def choose(self, drawing: tuple[int, ...], *, films: int, update: int, generator: torch.Generator) -> list[Steps]:
        """The steps of each of a group's films, out of those at which the rule can draw."""
        ...


@dataclass(frozen=True, slots=True)
class OneStep:
    """One drawn step a film, uniform over the first `share` of the schedule (arXiv 2605.15980).

    `shared` is iso-temporal grouping: a group's films branch at one noise level, so that their rewards compare.
    Without it each film has a step of its own.
    """

    share: float = 0.5
    shared: bool = True

    def choose(self, drawing: tuple[int, ...], *, films: int, update: int, generator: torch.Generator) -> list[Steps]:  # noqa: ARG002
        early = drawing[: max(1, round(self.share * len(drawing)))]
        picks = torch.randint(len(early), (films,), generator=generator).tolist()
        if self.shared:
            picks = picks[:1] * films
        return [Steps(drawn=(early[p],), learnt=(early[p],)) for p in picks]


@dataclass(frozen=True, slots=True)
class EveryStep:
    """All steps draw and all are learnt from (arXiv 2505.05470)."""

    shared: bool = True

    def choose(self, drawing: tuple[int, ...], *, films: int, update: int, generator: torch.Generator) -> list[Steps]:  # noqa: ARG002
        return [Steps(drawn=drawing, learnt=drawing)] * films


@dataclass(frozen=True, slots=True)
class RandomShare:
    """All steps draw, and a random `share` of them, one choice a group, is learnt from (arXiv 2505.07818)."""

    share: float = 0.6
    shared: bool = True

    def choose(self, drawing: tuple[int, ...], *, films: int, update: int, generator: torch.Generator) -> list[Steps]:  # noqa: ARG002
        count = max(1, round(self.share * len(drawing)))
        picks = torch.randperm(len(drawing), generator=generator)[:count].tolist()
        return [Steps(drawn=drawing, learnt=tuple(drawing[p] for p in sorted(picks)))] * films


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Steps of a window draw and are learnt from; it moves on by `stride` every `every` updates (arXiv 2507.21802).

    Behind the last step it begins anew.
    """

    size: int = 4
    every: int = 25
    stride: int = 1
    shared: bool = True

    def choose(self, drawing: tuple[int, ...], *, films: int, update: int, generator: torch.Generator) -> list[Steps]:  # noqa: ARG002
        size = min(self.size, len(drawing))
        places = len(drawing) - size + 1
        first = (update // self.every * self.stride) % places
        window = drawing[first : first + size]
        return [Steps(drawn=window, learnt=window)] * films
