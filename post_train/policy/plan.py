"""What one rollout makes: which prompts, from which noise, drawing at which steps; the same plan on every rank.

Everything follows from the run's seed and the rollout's number, so ranks agree without asking one another, and
`agreed` holds them to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from post_train.distributed import Ranks
from post_train.policy.selectors import Selector, Steps
from post_train.random_numbers import generator_of

_SEEDS = 2**62


class MismatchedGroupError(ValueError):
    """Films of one group differ in what they must share, or ranks in what they are to make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFilm:
    """One film of a rollout: the prompt's place in the rollout, its own seeds, and its steps."""

    group: int
    prompt: str
    seed: int
    draw_seed: int
    steps: Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """All films of a rollout, group after group, `size` films each."""

    films: tuple[PlannedFilm, ...]
    size: int

    def share(self, ranks: Ranks) -> slice:
        """Which of the films this rank makes. ValueError unless they divide."""
        if len(self.films) % ranks.count:
            raise ValueError(
                f"{len(self.films)} films do not divide among {ranks.count} ranks; choose prompts x group as a multiple"
            )
        each = len(self.films) // ranks.count
        return slice(ranks.rank * each, (ranks.rank + 1) * each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How rollouts are made up: `prompts` groups of `size` films; `shared_noise` starts a group from one noise."""

    prompts: int
    size: int
    shared_noise: bool = False


def planned(
    rollouts: Rollouts, texts: Sequence[str], selector: Selector, drawing: tuple[int, ...], *, seed: int, number: int
) -> RolloutPlan:
    """The plan of rollout `number` (from 0): prompts go through `texts` in an order drawn anew each time round."""
    films: list[PlannedFilm] = []
    for group in range(rollouts.prompts):
        prompt = texts[_pick(number * rollouts.prompts + group, len(texts), seed)]
        generator = generator_of(f"{seed}:rollout {number}:group {group}")
        chosen = selector.choose(drawing, films=rollouts.size, update=number, generator=generator)
        seeds = torch.randint(0, _SEEDS, (rollouts.size, 2), generator=generator).tolist()
        for (own, draw), steps in zip(seeds, chosen, strict=True):
            first = seeds[0][0] if rollouts.shared_noise else own
            films.append(PlannedFilm(group=group, prompt=prompt, seed=first, draw_seed=draw, steps=steps))
    plan = RolloutPlan(films=tuple(films), size=rollouts.size)
    check_groups(plan, shared_steps=selector.shared)
    return plan


def _pick(position: int, count: int, seed: int) -> int:
    around, place = divmod(position, count)
    return int(torch.randperm(count, generator=generator_of(f"{seed}:prompts {around}"))[place])


def check_groups(plan: RolloutPlan, *, shared_steps: bool) -> None:
    """MismatchedGroupError unless every group is of one prompt and, where they share them, of the same steps."""
    for start in range(0, len(plan.films), plan.size):
        group = plan.films[start : start + plan.size]
        if len({f.prompt for f in group}) > 1 or len({f.group for f in group}) > 1 or len(group) < plan.size:
            raise MismatchedGroupError(
                f"group {group[0].group} has films of other prompts or groups; its advantages would compare nothing"
            )
        if shared_steps and len({f.steps for f in group}) > 1:
            seen = sorted({f.steps.drawn for f in group})
            raise MismatchedGroupError(
                f"group {group[0].group} draws at steps {seen}; iso-temporal films share theirs, for rewards of noise "
                "that entered at different levels do not compare"
            )


def check_ranks_agree(plan: RolloutPlan, ranks: Ranks) -> None:
    """MismatchedGroupError when another rank is about to make other films: a group may lie on several ranks."""
    number = int.from_bytes(hashlib.sha256(repr(plan).encode()).digest()[:7], "big")
    greatest, least = ranks.most(number), -ranks.most(-number)
    if greatest != least:
        raise MismatchedGroupError(
            "ranks have planned different rollouts; start all of them with the same recipe, prompts and seed"
        )
