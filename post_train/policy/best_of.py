"""The best-of-n control: a model's own films, the best of n for each prompt by rewards, as a folder of clips.

Best is the film with the highest advantage in its group: what a policy would be pushed to, as a clip to learn.

Resumable: a prompt that is finished has its film on disk and its line in `choices.jsonl`, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from engines.engine import Engine
from engines.whole_writes import write_whole
from post_train.data.clips import METADATA
from post_train.data.lossless import SUFFIX, write_lossless
from post_train.films import FilmOrder, draw_films
from post_train.policy.advantages import AdvantageRule, advantages
from post_train.policy.panel import Panel, matrix
from post_train.rewards.base import Film

_CHOICES = "choices.jsonl"
_ORIGIN = "origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was kept for a prompt: its film and seed, its rewards, and the advantages and mean rewards of all.

    Rewards are in the order of the panel.
    """

    prompt: str
    file: str
    seed: int
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    means: tuple[float, ...]


_CHOICE = TypeAdapter(Choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """How many films are made for a prompt, the first of their seeds, and how many films a model makes at a time.

    `batch` may be a multiple of `count`, and then the films of several prompts are made together, as a GPU likes it.
    """

    count: int = 8
    batch: int = 8
    first_seed: int = 0


def write_best_of(
    folder: Path,
    prompts: Sequence[str],
    config: BestOf,
    *,
    engine: Engine,
    model_digest: str,
    panel: Panel,
    tell: Callable[[str], None],
) -> list[Choice]:
    """Fills `folder` with the best film of each prompt and a metadata.jsonl, so that it is a folder of clips.

    Prompt i has the seeds first_seed + i * count onwards. ValueError when the folder was begun with another model,
    rewards, prompts or numbers; RewardError when a film cannot be scored.
    """
    if config.count < 2 or not prompts or len(set(prompts)) < len(prompts):
        raise ValueError(f"best of {config.count} for {len(prompts)} prompts: each must be there once, with 2 or more")
    if panel.novelty:
        raise ValueError("novelty is a film's against its group's, and best-of keeps one film of a group; leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    _check_origin(folder, prompts, config, model_digest, panel)
    done = {c.prompt: c for c in _read_choices(folder)}
    missing = [(i, p) for i, p in enumerate(prompts) if p not in done or not (folder / done[p].file).is_file()]
    together = max(1, config.batch // config.count)
    for start in range(0, len(missing), together):
        for choice in _choose(folder, missing[start : start + together], config, engine, panel):
            _append(folder / _CHOICES, json.dumps(asdict(choice)))
            done[choice.prompt] = choice
            tell(f"{len(done)} of {len(prompts)} prompts: kept {_told(panel, choice.rewards)}, of {config.count}")
    chosen = [done[p] for p in prompts]
    lines = "".join(json.dumps({"file": c.file, "caption": c.prompt}) + "\n" for c in chosen)
    write_whole(folder / METADATA, lines.encode())
    return chosen


def gains(panel: Panel, chosen: Sequence[Choice]) -> str:
    """One line: each reward's mean over the films kept, and over all that were made."""
    kept, made = (np.array([getattr(c, name) for c in chosen]).mean(axis=0) for name in ("rewards", "means"))
    return f"kept: {_told(panel, kept)}; all that were made: {_told(panel, made)}"


def _choose(
    folder: Path, numbered: Sequence[tuple[int, str]], config: BestOf, engine: Engine, panel: Panel
) -> Iterator[Choice]:
    """The choice of each of some prompts, which come with their numbers, once its film is on disk."""
    count, fps = config.count, engine.card.defaults.fps
    orders = [
        FilmOrder(name=f"{index}-{seed}", prompt=prompt, seed=seed)
        for index, prompt in numbered
        for seed in range(config.first_seed + index * count, config.first_seed + (index + 1) * count)
    ]
    films = [
        Film(name=order.name, prompt=order.prompt, frames=result.frames, fps=fps)
        for order, result in draw_films(engine, orders, batch=config.batch)
    ]
    panel.submit(films)
    rewards = matrix(panel.collect()).reshape(len(numbered), count, len(panel.seats))
    found = advantages(rewards, panel.weights, AdvantageRule(clip=math.inf))
    for at, (index, prompt) in enumerate(numbered):
        best = int(found.values[at].argmax())
        file = f"film-{index:06d}{SUFFIX}"
        write_lossless(films[at * count + best].frames, folder / file, fps=fps)
        yield Choice(
            prompt=prompt,
            file=file,
            seed=config.first_seed + index * count + best,
            rewards=tuple(rewards[at, best].tolist()),
            advantages=tuple(found.values[at].tolist()),
            means=tuple(rewards[at].mean(axis=0).tolist()),
        )


def _told(panel: Panel, rewards: Iterable[float]) -> str:
    return ", ".join(f"{s.reward.dimension} {r:.4g}" for s, r in zip(panel.seats, rewards, strict=True))


def _check_origin(folder: Path, prompts: Sequence[str], config: BestOf, model: str, panel: Panel) -> None:
    origin = {
        "model": model,
        "rewards": panel.digests,
        "prompts": hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest(),
        "count": config.count,
        "first_seed": config.first_seed,
        "batch": config.batch,
    }
    path = folder / _ORIGIN
    if not path.is_file():
        write_whole(path, (json.dumps(origin, indent=1) + "\n").encode())
        return
    before = json.loads(path.read_text())
    differ = [k for k in origin if before.get(k) != origin[k]]
    if differ:
        raise ValueError(f"{folder} was begun with another {' and '.join(differ)}; go on with that, or in a new folder")


def _read_choices(folder: Path) -> list[Choice]:
    path = folder / _CHOICES
    if not path.is_file():
        return []
    *whole, torn = path.read_bytes().split(b"\n")
    if torn:
        os.truncate(path, path.stat().st_size - len(torn))
    return [_CHOICE.validate_json(line) for line in whole]


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
