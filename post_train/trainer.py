"""The training loop: steps, schedule, average, logs, samples and checkpoints, the same for every algorithm.

A step's randomness comes from (seed, step) alone, so a run that was stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from post_train.agreement import GradientAgreement
from post_train.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from post_train.distributed import ALONE, Ranks, placed, whole
from post_train.ema import WeightAverage
from post_train.random_numbers import generator_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long and how a run goes; `lr` rises linearly, stays, and falls to `lr * final_lr` by a cosine in the end.

    A long flat middle lets a run be lengthened, or ended early by its decay alone, without having been planned so.
    """

    seed: int
    steps: int
    lr: float
    warmup_steps: int
    decay_steps: int
    final_lr: float
    grad_clip: float
    ema_decay: float
    checkpoint_minutes: float
    sample_every: int
    log_every: int

    def lasting(self, steps: int | None) -> LoopConfig:
        """The same run in `steps` steps: warm-up and decay keep their share of them. None leaves it as it is."""
        if steps is None:
            return self
        shares = {"warmup_steps": self.warmup_steps * steps, "decay_steps": self.decay_steps * steps}
        return replace(self, steps=steps, **{name: round(value / self.steps) for name, value in shares.items()})

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        if step <= self.warmup_steps:
            return self.lr * step / max(1, self.warmup_steps)
        along = min(1.0, max(0.0, 1 - (self.steps - step) / max(1, self.decay_steps)))
        return self.lr * (self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * along)))


Figures = Mapping[str, float | Tensor]
"""What a step logs beside its loss: numbers, or tensors of one number, which are read when the step is computed."""


class TrainingTask(Protocol):
    """What an algorithm gives the loop."""

    module: nn.Module
    """Holds every trained weight."""

    def optimizer(self, lr: float) -> Optimizer:
        """A fresh optimizer over the trained weights."""
        ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, Figures]:
        """The loss of step `step` with its random numbers, and what to log beside it."""
        ...

    def sample(self, step: int, folder: Path) -> None:
        """Writes samples of the present weights into `folder`."""
        ...


@runtime_checkable
class AccumulatingTask(Protocol):
    """A task whose step is computed in parts, because all of it at once would not fit."""

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Figures]]:
        """The parts of `loss`, which add up to it; each is differentiated before the next is asked for."""
        ...


@runtime_checkable
class RememberingTask(Protocol):
    """A task that knows more than its weights from step to step: a policy, with its rollouts and what it was."""

    @property
    def at_rest(self) -> bool:
        """Whether `state` is all that the next step wants; a checkpoint is only taken then."""
        ...

    @property
    def finished(self) -> bool:
        """Whether there is no use in further steps."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What it remembers: tensors that are cut among ranks as the weights are, and JSON."""
        ...

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Takes up what `state` told, tensors whole."""
        ...


class TrainingDivergedError(FloatingPointError, ValueError):
    """A loss or a gradient is not finite: the weights are as they were before the step, and so is the checkpoint."""


def recipe_hash(config: Any) -> str:
    """A short hash of a recipe's configuration, which names a run's checkpoints."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: the same whenever and however often the step is run."""
    return generator_of(f"{seed}:{step}")


class Trainer:
    """Runs a task in a run folder, from its newest checkpoint if there is one.

    `manifest` is told in every checkpoint. A run whose first weights had seen `steps_before` steps of this data goes on
    behind them, lest it learn from the same clips with the same noise again. With several `ranks` each holds its part
    of weights, average and optimizer; the first writes checkpoints of whole tensors, and any number of ranks goes on
    from them. With `agreement` each update logs how far its gradient agrees with the last one.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: LoopConfig,
        run: Path,
        *,
        recipe: str,
        manifest: dict[str, Any] | None = None,
        steps_before: int = 0,
        ranks: Ranks = ALONE,
        agreement: bool = False,
    ) -> None:
        self.task, self.config, self.run, self.recipe = task, config, run, recipe
        self.manifest, self.steps_before, self.ranks = manifest, steps_before, ranks
        self.agreement = GradientAgreement(ranks) if agreement else None
        self.optimizer = task.optimizer(config.lr)
        self.average = WeightAverage(task.module, config.ema_decay)
        self.step = 0
        self._recent: list[dict[str, float]] = []

    def resume(self) -> bool:
        """Takes up the newest checkpoint of the run folder; False when there is none.

        CheckpointError when it was written by another recipe.
        """
        found = latest_checkpoint(self.run)
        if found is None:
            return False
        if found.facts["recipe"] != self.recipe:
            raise CheckpointError(
                f"{self.run} holds a run of recipe {found.facts['recipe']}, this one is {self.recipe}; "
                "choose another run folder or the recipe it was started with"
            )
        parameters = dict(self.task.module.named_parameters())
        with torch.no_grad():
            for name, value in found.tensors["weights"].items():
                parameters[name].copy_(placed(value, parameters[name]))
        self.average.weights = {n: placed(v, parameters[n]).clone() for n, v in found.tensors["average"].items()}
        state = restore_optimizer(found.tensors.get("optimizer", {}), found.facts["optimizer"])
        self.optimizer.load_state_dict(self._placed_slots(state))
        self.step = found.step
        if isinstance(self.task, RememberingTask):
            self.task.restore(found.tensors.get("task", {}), found.facts["task"])
        return True

    def _placed_slots(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state with the slots that have their weight's shape cut as that weight is."""
        for at, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            slots = state["state"].get(at, {})
            for name, value in slots.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0:
                    slots[name] = placed(value, parameter)
        return state

    def save(self) -> Path:
        """Writes a checkpoint of the present step."""
        tensors, rest = optimizer_tensors(self.optimizer.state_dict())
        groups = {
            "weights": self._whole((n, p.detach()) for n, p in self.task.module.named_parameters()),
            "average": self._whole(self.average.weights.items()),
        }
        if tensors:
            groups["optimizer"] = self._whole(tensors.items())
        metrics = self._recent[-1] if self._recent else {}
        facts: dict[str, Any] = {"recipe": self.recipe, "optimizer": rest, "metrics": metrics}
        if isinstance(self.task, RememberingTask):
            remembered, facts["task"] = self.task.state()
            if remembered:
                groups["task"] = self._whole(remembered.items())
        if self.manifest is not None:
            facts["manifest"] = {**self.manifest, "step": self.step, "metrics": metrics}
        if self.ranks.first:
            save_checkpoint(self.run, Checkpoint(step=self.step, tensors=groups, facts=facts))
        self.ranks.wait()
        return self.run / f"step-{self.step}"

    def _whole(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Every tensor as the file has it: on a lone rank as it is, else brought together on the first."""
        if self.ranks.count == 1:
            return dict(tensors)
        gathered = {}
        for name, tensor in tensors:
            complete = whole(tensor)  # all ranks take part, one keeps it
            if self.ranks.first:
                gathered[name] = complete
        return gathered

    def train(self, *, until: int | None = None, minutes: float = math.inf, report: Callable[[str], None]) -> None:
        """Trains to step `until` (the recipe's end by default) or for `minutes`, and saves in the end."""
        end = min(until or self.config.steps, self.config.steps)
        started = saved = time.monotonic()
        while self.step < end and not self._finished:
            if self._at_rest and not self.ranks.agreed(time.monotonic() - started < 60 * minutes):
                break
            self._one_step()
            if self.step % self.config.log_every == 0 and self.ranks.first:
                report(self._log(time.monotonic() - started))
            if self.step % self.config.sample_every == 0:
                self.sample()
            if self._over or not self._at_rest:
                continue
            if self.ranks.agreed(time.monotonic() - saved > 60 * self.config.checkpoint_minutes):
                self.save()
                saved = time.monotonic()
        if self._over and isinstance(self.task, RememberingTask):
            self.sample()  # the end is looked at whatever the schedule, and remembered
        if self._at_rest:
            self.save()

    @property
    def _at_rest(self) -> bool:
        return not isinstance(self.task, RememberingTask) or self.task.at_rest

    @property
    def _over(self) -> bool:
        return self.step >= self.config.steps or self._finished

    @property
    def _finished(self) -> bool:
        return isinstance(self.task, RememberingTask) and self.task.finished

    def sample(self) -> None:
        """Lets the task draw samples with the averaged weights.

        Several ranks draw none, their export can be asked; but for a task that remembers, whose samples decide.
        """
        if self.ranks.count > 1 and not isinstance(self.task, RememberingTask):
            return
        live = {n: p.detach().clone() for n, p in self.task.module.named_parameters()}
        self.average.copy_to(self.task.module)
        try:
            self.task.sample(self.step, self.run / "samples")
        finally:
            with torch.no_grad():
                for name, parameter in self.task.module.named_parameters():
                    parameter.copy_(live[name])

    def _one_step(self) -> None:
        step = self.step + 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(step) * group.get("lr_scale", 1.0)
        began = time.monotonic()
        losses, figures = self._backward(step)
        clipped = nn.utils.clip_grad_norm_(self.task.module.parameters(), self.config.grad_clip)
        # Only now is the device asked for a number, once everything that the step computes is queued on it.
        norm = float(whole(clipped))
        value, metrics = self._told(losses, figures)
        for what, figure in (("loss", value), ("gradient norm", norm)):
            if not math.isfinite(figure):
                raise TrainingDivergedError(
                    f"the {what} of step {step} is {figure}; the last checkpoint is intact, lower the learning rate"
                )
        if self.agreement is not None:
            metrics["agreement"] = self.agreement.take(self.task.module)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step = step
        self.average.update(self.task.module, step)
        self._recent.append({"loss": value, "grad_norm": norm, "seconds": time.monotonic() - began, **metrics})
        del self._recent[: -self.config.log_every]

    def _backward(self, step: int) -> tuple[list[Tensor], list[Figures]]:
        """Leaves the gradient of step `step` in the weights; the losses and figures of its parts."""
        step += self.steps_before
        generator = step_generator(self.config.seed, step)
        task = self.task
        parts = task.losses(step, generator) if isinstance(task, AccumulatingTask) else (task.loss(step, generator),)
        losses, told = [], []
        for loss, figures in parts:
            losses.append(loss.detach())
            told.append(figures)
            loss.backward()
        return losses, told

    def _told(self, losses: list[Tensor], told: list[Figures]) -> tuple[float, dict[str, float]]:
        """The loss of a step and its figures, as means over the ranks."""
        value = sum(float(loss) for loss in losses)
        metrics = {k: sum(float(figures[k]) for figures in told) for k in told[-1]}
        value, *means = self.ranks.mean([value, *metrics.values()])
        return value, dict(zip(metrics, means, strict=True))

    def _log(self, elapsed: float) -> str:
        """Appends the mean of the recent steps to log.jsonl, and gives it as a line."""
        names = self._recent[-1].keys()
        row = {k: sum(r[k] for r in self._recent) / len(self._recent) for k in names}
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "elapsed": round(elapsed, 1), **row}) + "\n")
        shown = "  ".join(f"{k} {v:.4g}" for k, v in row.items())
        return f"step {self.step}/{self.config.steps}  {shown}"
