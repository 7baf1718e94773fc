"""The task of policy optimisation: rollouts, their rewards, and the updates that are made of them.

Legend: P prompts of a rollout, G films of each, K rewards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from post_train.distributed import Ranks
from post_train.evaluation.diversity import layouts, novelties
from post_train.policy.advantages import AdvantageRule, Advantages, advantages
from post_train.policy.collapse import check_alive, flat_share, frozen_share
from post_train.policy.draw_learner import DrawLearner
from post_train.policy.forward_learner import ForwardLearner
from post_train.policy.methods import DrawnSteps, Item, Learner, Method, by_step
from post_train.policy.panel import Panel, matrix
from post_train.policy.plan import RolloutPlan, Rollouts, check_ranks_agree, planned
from post_train.policy.rollout import Policy, RolledOut
from post_train.policy.selectors import OneStep
from post_train.policy.snapshots import Weights, swapped
from post_train.policy.weights import Slopes
from post_train.rewards.base import Film, Score

_FORWARD = OneStep(share=1.0)  # on the forward process nothing draws; a plan wants a choice all the same


class DriftError(RuntimeError, ValueError):
    """A policy gives its own draws other probabilities than they were drawn with, before it has learnt anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """How a policy learns. A rollout is learnt from in `updates` optimizer steps, each of a part of its groups.

    `rollout_batch` films are made at once and `micro_batch` draws replayed at once. `drift_share` of the trust region's
    range is what the ratio may be off at the start of a run. A run ends when it has computed `most_forwards` rows, one
    with gradients counted as three: methods compare at equal cost.
    """

    method: Method
    rollouts: Rollouts
    advantage: AdvantageRule
    updates: int = 1
    rollout_batch: int = 8
    micro_batch: int = 8
    drift_share: float = 0.25
    weight_decay: float = 1e-4
    most_forwards: int | None = None

    def __post_init__(self) -> None:
        if self.updates < 1 or self.rollouts.prompts % self.updates:
            raise ValueError(
                f"{self.rollouts.prompts} groups do not divide into {self.updates} updates; choose a divisor"
            )
        if self.rollouts.size < 2:
            raise ValueError(f"a group of {self.rollouts.size} has nothing to compare; choose 2 films or more")
        few = self.advantage.extremes
        if few is not None and 2 * few >= self.rollouts.size:
            raise ValueError(
                f"the best and worst {few} are all of a group of {self.rollouts.size}; choose fewer, or larger groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """A rollout after its rewards: the plan, all ranks' advantages [P, G], this rank's items, figures for the log."""

    plan: RolloutPlan
    advantages: Advantages
    items: tuple[Item, ...]
    figures: dict[str, float]


class Validation:
    """What a task does on its schedule with the averaged weights; see `post_train.policy.validation`."""

    finished = False

    def measure(self, step: int, folder: Path) -> None:
        """Looks at the present weights."""

    def state(self) -> dict[str, Any]:
        """What it remembers, JSON."""
        return {}

    def restore(self, facts: dict[str, Any]) -> None:
        """Takes it up."""


class PolicyTask:
    """One method on one policy; a step of the trainer is one update. `module` holds the trained weights alone."""

    def __init__(
        self,
        config: PolicyConfig,
        policy: Policy,
        module: nn.Module,
        panel: Panel,
        *,
        prompts: Sequence[str],
        seed: int,
        validation: Validation,
    ) -> None:
        if not prompts:
            raise ValueError("there is no prompt to roll out; give at least one")
        self.config, self.policy, self.module, self.panel = config, policy, module, panel
        self.prompts, self.seed, self.validation = list(prompts), seed, validation
        self.ranks: Ranks = policy.ranks
        method = config.method
        self.learner: Learner = (
            DrawLearner(method, policy, module, micro_batch=config.micro_batch)
            if isinstance(method, DrawnSteps)
            else ForwardLearner(method, policy, module, micro_batch=config.micro_batch)
        )
        self._experience: Experience | None = None
        self._done = 0
        self._checked = not isinstance(method, DrawnSteps)  # the ratio before any update, which must be one
        self.spent = self._spent_before = 0
        """Rows computed by all ranks until the last update, those with gradients thrice."""
        self._told = 0  # rows of this rank that a figure has told of

    @property
    def at_rest(self) -> bool:
        return self._done % self.config.updates == 0

    @property
    def finished(self) -> bool:
        most = self.config.most_forwards
        return self.at_rest and ((most is not None and self.spent >= most) or self.validation.finished)

    def optimizer(self, lr: float) -> Optimizer:
        trained = list(self.module.parameters())
        return AdamW(trained, lr=lr, weight_decay=self.config.weight_decay, betas=(0.9, 0.999))

    def sample(self, step: int, folder: Path) -> None:
        self.validation.measure(step, folder)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """All parts at once, for a rollout that fits."""
        parts = list(self.losses(step, generator))
        figures = {k: sum(torch.as_tensor(f[k]) for _, f in parts) for k in parts[0][1]}
        return torch.stack([loss for loss, _ in parts]).sum(), figures  # pyright: ignore[reportReturnType]

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[Tensor, dict[str, float | Tensor]]]:  # noqa: ARG002
        """The parts of update `step`; before the first of a rollout, the rollout itself."""
        number, part = divmod(step - 1, self.config.updates)
        if part == 0 or self._experience is None:
            self._experience = self._rolled_out(number, step)
        yield from self._parts(self._experience, part)
        (mean,) = self.ranks.mean([float(self.policy.forwards)])
        self.spent = self._spent_before + round(mean * self.ranks.count)
        self._done = step

    def state(self) -> tuple[Weights, dict[str, Any]]:
        tensors, facts = self.learner.state()
        remembered = {"learner": facts, "forwards": self.spent, "validation": self.validation.state()}
        return tensors, remembered | {"done": self._done}

    def restore(self, tensors: Weights, facts: dict[str, Any]) -> None:
        self.learner.restore(tensors, facts["learner"])
        self.spent = self._spent_before = facts["forwards"]
        self._done = facts["done"]
        self.validation.restore(facts["validation"])

    def _rolled_out(self, number: int, step: int) -> Experience:
        config = self.config
        makers = self.learner.begin(number)
        selector = config.method.selector if isinstance(config.method, DrawnSteps) else _FORWARD
        drawing = self.policy.drawing or tuple(range(len(self.policy.sigmas) - 1))
        plan = planned(config.rollouts, self.prompts, selector, drawing, seed=self.seed, number=number)
        check_ranks_agree(plan, self.ranks)
        own = plan.share(self.ranks)
        if makers is None:
            films, rolled = self._films(plan, own)
        else:
            with swapped(self.module, makers):
                films, rolled = self._films(plan, own)
        self._check_alive(films, step)
        texts = [plan.films[film.film].prompt for film in rolled]
        items = self.learner.items(rolled, texts, seed=f"{self.seed}:rollout {number}")
        scores = self.panel.collect()
        rewards = self.ranks.gathered(matrix(scores).astype(np.float64)).astype(np.float32)
        count, size = config.rollouts.prompts, config.rollouts.size
        apart = self._novelties(films, size)
        figures = self._figures(rewards, scores) | {"diversity": float(apart.mean())}
        if self.panel.novelty:
            rewards = np.column_stack([rewards, apart]).astype(np.float32)
        found = advantages(rewards.reshape(count, size, -1), self.panel.weights, config.advantage)
        return Experience(
            plan=plan,
            advantages=found,
            items=tuple(items),
            figures=figures | {"dropped": float(found.dropped)},
        )

    def _films(self, plan: RolloutPlan, own: slice) -> tuple[list[NDArray[np.uint8]], list[RolledOut]]:
        """This rank's films and what their draws remember; rewards look at each batch while the next is made."""
        frames: list[NDArray[np.uint8]] = []
        rolled: list[RolledOut] = []
        spec = self.policy.sampling.spec
        for first in range(own.start, own.stop, self.config.rollout_batch):
            some = plan.films[first : min(first + self.config.rollout_batch, own.stop)]
            made = self.policy.roll_out(some, first)
            batch = [self.policy.engine.family.decode(film.latents).numpy() for film in made]
            self.panel.submit(
                [
                    Film(name=f"{film.prompt!r}, seed {film.seed}", prompt=film.prompt, frames=f, fps=spec.fps)
                    for film, f in zip(some, batch, strict=True)
                ]
            )
            rolled += made
            frames += batch
        return frames, rolled

    def _novelties(self, films: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.float64]:
        """Of every rank's films, from this rank's own, [P G]."""
        own = layouts(films)
        if len(own) % size == 0:  # every rank has whole groups
            return self.ranks.gathered(novelties(own, size)[:, None]).reshape(-1)
        # One film of each rank at a time: a layout of 480p takes 12 MB, and only the host need hold them all.
        everywhere = np.stack([self.ranks.gathered(row[None]) for row in own], axis=1)
        return novelties(everywhere.reshape(-1, own.shape[1]), size)

    def _check_alive(self, films: Sequence[NDArray[np.uint8]], step: int) -> None:
        frozen, flat = self.ranks.mean([frozen_share(films), flat_share(films)])
        check_alive(frozen, flat, step=step)

    def _check_drift(self, worst: float) -> None:
        """Once a run: the policy must give its draws the probabilities that they were drawn with."""
        method = self.config.method
        if self._checked or not isinstance(method, DrawnSteps):
            return
        self._checked = True
        allowed = self.config.drift_share * method.trust.clip_range
        if self.ranks.most(int(worst > allowed)):
            raise DriftError(
                f"before any update the ratio is off by {worst:.2e}, and the trust region's range is "
                f"{method.trust.clip_range:.2e} (allowed: {allowed:.2e}): rollout and replay differ in precision, "
                "batch shape, attention or compilation; make them alike, compute in fp32, or widen the range"
            )

    def _parts(self, experience: Experience, part: int) -> Iterator[tuple[Tensor, dict[str, float | Tensor]]]:
        """Of the groups of this update, the draws that are learnt from, in parts of one step each."""
        plan, updates = experience.plan, self.config.updates
        kept = experience.advantages.kept.reshape(-1)
        values = experience.advantages.values.reshape(-1)
        wanted = [bool(kept[i]) and film.group % updates == part for i, film in enumerate(plan.films)]
        # What every rank's draws count is told by the plan, and their sum with it.
        indices = self._learnt_indices(plan, experience, wanted)
        factors = dict(zip(indices, self.learner.weights([i for _, i in indices]), strict=True)) if indices else {}
        own = [item for item in experience.items if wanted[item.draw.film]]
        parts, real = self._padded(by_step([item.draw.index for item in own], self.config.micro_batch))
        # Without any of its own a rank computes one that counts nothing, while others compute theirs.
        own = own or list(experience.items[:1])
        figures = {k: v / len(parts) for k, v in experience.figures.items()}
        worst, slopes = 0.0, Slopes()
        for at, places in enumerate(parts):
            items = [own[p] for p in places]
            counted = [factors[i.draw.film, i.draw.index] if at < real else 0.0 for i in items]
            advantage = torch.tensor([values[i.draw.film] for i in items], dtype=torch.float32, device=self._device)
            learnt = self.learner.learn(items, advantage)
            weights = torch.tensor(counted, dtype=torch.float32, device=self._device)
            # FSDP averages gradients over ranks, so that a rank's share is of the mean over all.
            share = self.ranks.count / max(1, len(indices))
            loss = (learnt.losses * weights).sum() * share
            if at < real and learnt.slopes is not None:
                slopes.take(items[0].draw.index, learnt.slopes.tolist())
            if not self._checked:
                worst = max(worst, float(learnt.figures["apart"].max().nan_to_num(nan=math.inf)))
            told = {k: v.sum() * share * (at < real) for k, v in learnt.figures.items()}
            rows, self._told = self.policy.forwards - self._told, self.policy.forwards
            yield loss, {**told, **figures, "forwards": float(rows * self.ranks.count)}
        self._check_drift(worst)
        self.learner.saw(slopes.means(self.ranks, len(self.policy.sigmas) - 1))

    def _learnt_indices(
        self, plan: RolloutPlan, experience: Experience, wanted: Sequence[bool]
    ) -> list[tuple[int, int]]:
        """(film, step) of every rank's draws in this update, in the plan's order."""
        if isinstance(self.config.method, DrawnSteps):
            return [(i, s) for i, film in enumerate(plan.films) if wanted[i] for s in film.steps.learnt]
        own = [(item.draw.film, item.draw.index) for item in experience.items]
        everywhere = self.ranks.gathered(np.array(own, dtype=np.float64)).astype(int).tolist()
        return [(film, index) for film, index in everywhere if wanted[film]]

    def _padded(self, parts: list[list[int]]) -> tuple[list[list[int]], int]:
        """As many parts on every rank, at least one, for each waits for the others in every call of the model.

        And how many of them are this rank's own; the rest count nothing.
        """
        most = max(1, self.ranks.most(len(parts)))
        return [*parts, *(parts[-1:] or [[0]]) * (most - len(parts))], len(parts)

    def _figures(self, rewards: NDArray[np.float32], scores: Sequence[Sequence[Score]]) -> dict[str, float]:
        """Means of all ranks' rewards, and of what judges told of motion beside their scores."""
        names = self.panel.columns
        told = dict(zip(names, rewards.mean(axis=0).tolist(), strict=True))
        moving = [score.parts["dynamic_degree"] for row in scores for score in row if "dynamic_degree" in score.parts]
        if moving:
            (told["dynamic_degree"],) = self.ranks.mean([float(np.mean(moving))])
        return told

    @property
    def _device(self) -> torch.device:
        return self.ranks.device
