"""Films of validation prompts by the serving sampler, judged on a schedule: which weights are best, and when to stop.

Legend: N films, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine
from engines.whole_writes import write_whole
from post_train.contact_sheet import write_sheet
from post_train.distributed import Ranks
from post_train.films import FilmOrder, draw_films
from post_train.policy.collapse import frozen_share
from post_train.policy.task import Validation
from post_train.rewards.base import Film, Reward, scored

BATCH = 8
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """`every` so many updates; no better score in `patience` of them ends the run. A film a prompt, seeds their places.

    Which judge validates is the run's affair; it is never the one that rewards, nor the held-out one.
    """

    prompts: int = 48
    every: int = 4
    patience: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One look: each dimension's mean, and `score`, the mean sum of all in deviations of the first look's films.

    `totals` are those sums a prompt; `forwards` is what training had cost until then.
    """

    step: int
    score: float
    means: dict[str, float]
    dynamic_degree: float | None
    frozen: float
    totals: list[float]
    forwards: int


@dataclass(slots=True)
class _History:
    looks: list[Measured] = field(default_factory=list)
    scale: dict[str, tuple[float, float]] = field(default_factory=dict)


class Validator(Validation):
    """Judges the averaged weights; `keep_best(step)` is called when they are better than all before."""

    def __init__(
        self,
        config: ValidationConfig,
        engine: Engine,
        rewards: Sequence[Reward],
        prompts: Sequence[str],
        *,
        ranks: Ranks,
        forwards: Callable[[], int],
        keep_best: Callable[[int], None],
        report: Callable[[str], None],
    ) -> None:
        self.config, self.engine, self.rewards = config, engine, list(rewards)
        self.prompts, self.ranks = list(prompts)[: config.prompts], ranks
        self._forwards, self._keep_best, self._report = forwards, keep_best, report
        self._history = _History()

    @property
    def looks(self) -> list[Measured]:
        return self._history.looks

    @property
    def best(self) -> Measured | None:
        """The best look so far."""
        return max(self.looks, key=lambda look: look.score, default=None)

    @property
    def finished(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  a task asks for no more
        best = self.best
        return best is not None and sum(look.step > best.step for look in self.looks) >= self.config.patience

    def measure(self, step: int, folder: Path) -> None:
        if not self.prompts or any(look.step == step for look in self.looks):
            return
        values, frames = self._judged()
        names = [reward.dimension.value for reward in self.rewards]
        if not self.looks:
            spread = np.maximum(values[:, : len(names)].std(axis=0), 1e-6)
            middle = values[:, : len(names)].mean(axis=0)
            pairs = zip(middle.tolist(), spread.tolist(), strict=True)
            self._history.scale = dict(zip(names, pairs, strict=True))
        means = values.mean(axis=0)
        told = dict(zip(names, means.tolist(), strict=False))
        scale = np.array([self._history.scale[name] for name in names])
        totals = ((values[:, : len(names)] - scale[:, 0]) / scale[:, 1]).sum(axis=1)
        score = float(totals.mean())
        dynamic = None if np.isnan(means[-2]) else float(means[-2])
        before = self.best
        look = Measured(
            step=step,
            score=score,
            means=told,
            dynamic_degree=dynamic,
            frozen=float(means[-1]),
            totals=totals.tolist(),
            forwards=self._forwards(),
        )
        self.looks.append(look)
        if self.ranks.first:
            write_sheet(folder / f"policy-{step:06d}.png", list(zip(self.prompts, frames, strict=False))[:_SHOWN])
            lines = "".join(json.dumps(asdict(look)) + "\n" for look in self.looks)
            write_whole(folder.parent / "validation.jsonl", lines.encode())
        shown = "  ".join(f"{k} {v:.4g}" for k, v in told.items())
        self._report(f"validation at {step}: score {score:+.3f}  {shown}  dynamic {dynamic}  frozen {look.frozen:.2f}")
        if before is None or score > before.score:
            self._keep_best(step)

    def state(self) -> dict[str, Any]:
        return {"looks": [asdict(look) for look in self.looks], "scale": self._history.scale}

    def restore(self, facts: dict[str, Any]) -> None:
        self._history.looks = [Measured(**look) for look in facts["looks"]]
        self._history.scale = {k: (v[0], v[1]) for k, v in facts["scale"].items()}

    def _judged(self) -> tuple[NDArray[np.float64], list[NDArray[np.uint8]]]:
        """Scores [N, D + 2] of all ranks' films, VBench's dynamic degree and frozen behind them, and this one's frames.

        The serving loop makes them, with the model's own defaults; every rank an equal share, the last ones twice.
        """
        each = -(-len(self.prompts) // self.ranks.count)
        places = [min(self.ranks.rank * each + i, len(self.prompts) - 1) for i in range(each)]
        orders = [FilmOrder(name=str(p), prompt=self.prompts[p], seed=p) for p in places]
        frames = [result.frames for _, result in draw_films(self.engine, orders, batch=BATCH)]
        fps = self.engine.card.defaults.fps
        films = [
            Film(name=f"validation {o.name}: {o.prompt}", prompt=o.prompt, frames=f, fps=fps)
            for o, f in zip(orders, frames, strict=True)
        ]
        columns = [scored(reward, films) for reward in self.rewards]
        rows = [
            [*(c[i].value for c in columns), _dynamic([c[i].parts for c in columns]), frozen_share([frames[i]])]
            for i in range(len(films))
        ]
        return self.ranks.gathered(np.array(rows, dtype=np.float64))[: len(self.prompts)], frames


def _dynamic(parts: Sequence[dict[str, float]]) -> float:
    return next((p["dynamic_degree"] for p in parts if "dynamic_degree" in p), float("nan"))
