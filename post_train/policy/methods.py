"""How a policy learns from films that were scored: what a method is made of, and what every method gives the loop.

Legend: B items of one noise level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from post_train.policy.forward_process import NftRule, OldPolicy
from post_train.policy.rollout import Draw, Policy, RolledOut
from post_train.policy.selectors import OneStep, Selector
from post_train.policy.snapshots import Weights, swapped
from post_train.policy.steps import StepRule
from post_train.policy.trust import Clip, TrustRegion
from post_train.policy.weights import Weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to learn from: a draw with what other policies said of the same point, [C, T, H, W] each.

    On the forward process the draw's `after` is the clean film, and its velocity that of the old policy.
    """

    draw: Draw
    prompt: str
    reference: Tensor
    anchor: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """The loss of each item [B], and figures of each [B] to be averaged.

    `slopes` [B], where a learner weighs steps by them, are the norms of the losses' gradients by the velocities.
    """

    losses: Tensor
    figures: dict[str, Tensor]
    slopes: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSteps:
    """Policy gradients over drawn steps: a rule that draws, a choice of steps, what they count, and a trust region."""

    rule: StepRule
    selector: Selector = field(default_factory=OneStep)
    weighting: Weighting = Weighting.RECTIFIED
    trust: TrustRegion = field(default_factory=Clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardProcess:
    """DiffusionNFT: `levels` noise levels of each film are learnt from.

    With `shared_noise` the films of a group are noised alike, to the same levels. A group's advantages sum to zero, so
    what noise and level alone make of the gradient cancels: it expects the same, with less variance.
    """

    nft: NftRule = field(default_factory=NftRule)
    old: OldPolicy = field(default_factory=OldPolicy)
    levels: int = 2
    shared_noise: bool = False


Method = DrawnSteps | ForwardProcess


class Learner(Protocol):
    """A method at work on one module, with what it remembers."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what `learn` tells beside the losses."""
        ...

    def begin(self, rollout: int) -> Weights | None:
        """Called before rollout number `rollout`, from 0; weights that are to make its films, None for the present."""
        ...

    def items(self, rolled: Sequence[RolledOut], prompts: Sequence[str], *, seed: str) -> list[Item]:
        """What films teach; `prompts` are theirs. The same for a film whichever others are with it."""
        ...

    def weights(self, indices: Sequence[int]) -> list[float]:
        """What items at these steps count, averaging to one."""
        ...

    def learn(self, items: Sequence[Item], advantages: Tensor) -> Learnt:
        """The losses of items of one step, with gradients."""
        ...

    def saw(self, slopes: Mapping[int, float]) -> None:
        """The mean slope that each step's items had in an update, over all ranks."""
        ...

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """What it remembers."""
        ...

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Takes it up."""
        ...


@torch.no_grad()
def velocities(
    policy: Policy, module: nn.Module, weights: Weights, pairs: Sequence[tuple[Draw, str]], micro_batch: int
) -> list[Tensor]:
    """What other weights say at the points of draws, guided, in the order of `pairs`."""
    found: dict[int, Tensor] = {}
    with swapped(module, weights):
        parts = by_step([draw.index for draw, _ in pairs], micro_batch)
        # Every rank must call the model as often as the others, or they wait for one another for ever.
        for places in [*parts, *parts[-1:] * (policy.ranks.most(len(parts)) - len(parts))]:
            points = torch.stack([pairs[p][0].before for p in places])
            said = policy.velocity(points, pairs[places[0]][0].index, [pairs[p][1] for p in places]).guided()
            found.update(zip(places, said, strict=True))
    return [found[place] for place in range(len(pairs))]


def by_step(indices: Sequence[int], most: int) -> list[list[int]]:
    """Places of equal steps together, at most so many, steps rising."""
    parts: list[list[int]] = []
    for step in sorted(set(indices)):
        places = [p for p, index in enumerate(indices) if index == step]
        parts += [places[start : start + most] for start in range(0, len(places), most)]
    return parts


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
