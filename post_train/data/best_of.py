"""The best-of-n control: a model's own films, the best of n for each prompt by a reward, as a folder of clips.

Resumable: a prompt that is finished has its film on disk and its line in `choices.jsonl`, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
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
    """How many films are made for a prompt, how many at a time, and the first of their seeds."""

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
    for index, prompt in enumerate(prompts):
        if prompt in done and (folder / done[prompt].file).is_file():
            continue
        choice = _choose(folder, index, prompt, config, engine, reward)
        _append(folder / _CHOICES, json.dumps(asdict(choice)))
        done[prompt] = choice
        tell(f"{len(done)} of {len(prompts)} prompts: best {choice.value:.3f} of {config.count}")
    chosen = [done[p] for p in prompts]
    lines = "".join(json.dumps({"file": c.file, "caption": c.prompt}) + "\n" for c in chosen)
    write_whole(folder / METADATA, lines.encode())
    return chosen


def _choose(folder: Path, index: int, prompt: str, config: BestOf, engine: Engine, reward: Reward) -> Choice:
    first = config.first_seed + index * config.count
    orders = [FilmOrder(name=f"{index}-{s}", prompt=prompt, seed=s) for s in range(first, first + config.count)]
    results = [result for _, result in draw_films(engine, orders, batch=config.batch)]
    fps = engine.card.defaults.fps
    films = [Film(name=o.name, prompt=prompt, frames=r.frames, fps=fps) for o, r in zip(orders, results, strict=True)]
    values = [s.value for s in scored(reward, films)]
    best = max(range(len(values)), key=values.__getitem__)
    file = f"film-{index:06d}{SUFFIX}"
    write_lossless(films[best].frames, folder / file, fps=fps)
    return Choice(prompt=prompt, file=file, seed=orders[best].seed, value=values[best], values=tuple(values))


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
