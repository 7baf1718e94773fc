"""The best-of-n control: a model's own films, the best of n for each prompt by a reward, as a folder of clips.

Resumable: a prompt that is finished has its film on disk and its line in `choices.jsonl`, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.engine import Engine
from engines.whole_writes import write_whole
from post_train.data.clips import METADATA
from post_train.data.lossless import SUFFIX, write_lossless
from post_train.films import FilmOrder, draw_films
from post_train.rewards.base import Film, Reward, scored

_CHOICES = "choices.jsonl"
_ORIGIN = "origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was kept for a prompt: its film, the seed and score of it, and the scores of all that were made."""

    prompt: str
    file: str
    seed: int
    value: float
    values: tuple[float, ...]


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
    reward: Reward,
    tell: Callable[[str], None],
) -> list[Choice]:
    """Fills `folder` with the best film of each prompt and a metadata.jsonl, so that it is a folder of clips.

    Prompt i has the seeds first_seed + i * count onwards. ValueError when the folder was begun with another model,
    reward, prompts or numbers; RewardError when a film cannot be scored.
    """
    if config.count < 1 or not prompts or len(set(prompts)) < len(prompts):
        raise ValueError(f"best of {config.count} for {len(prompts)} prompts: each must be there once, with 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    _check_origin(folder, prompts, config, model_digest, reward)
    done = {c.prompt: c for c in _read_choices(folder)}
    missing = [(i, p) for i, p in enumerate(prompts) if p not in done or not (folder / done[p].file).is_file()]
    together = max(1, config.batch // config.count)
    for start in range(0, len(missing), together):
        for choice in _choose(folder, missing[start : start + together], config, engine, reward):
            _append(folder / _CHOICES, json.dumps(asdict(choice)))
            done[choice.prompt] = choice
            tell(f"{len(done)} of {len(prompts)} prompts: best {choice.value:.3f} of {config.count}")
    chosen = [done[p] for p in prompts]
    lines = "".join(json.dumps({"file": c.file, "caption": c.prompt}) + "\n" for c in chosen)
    write_whole(folder / METADATA, lines.encode())
    return chosen


def _choose(
    folder: Path, numbered: Sequence[tuple[int, str]], config: BestOf, engine: Engine, reward: Reward
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
    values = [s.value for s in scored(reward, films)]
    for at, (index, prompt) in enumerate(numbered):
        own = values[at * count : (at + 1) * count]
        best = max(range(count), key=own.__getitem__)
        file = f"film-{index:06d}{SUFFIX}"
        write_lossless(films[at * count + best].frames, folder / file, fps=fps)
        seed = config.first_seed + index * count + best
        yield Choice(prompt=prompt, file=file, seed=seed, value=own[best], values=tuple(own))


def _check_origin(folder: Path, prompts: Sequence[str], config: BestOf, model: str, reward: Reward) -> None:
    origin = {
        "model": model,
        "reward": reward.digest,
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
    contents = [json.loads(line) for line in whole]
    return [Choice(**{**c, "values": tuple(c["values"])}) for c in contents]


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
