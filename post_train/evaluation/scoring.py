"""Scores of films by a judge's three rewards, kept on disk under the hashes of film, judge and judging code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engines.whole_writes import write_whole
from post_train.evaluation.digests import judging_digest
from post_train.evaluation.films import Ask, FilmCabinet, MadeFilm, Progress
from post_train.keys import key_of
from post_train.rewards.base import Dimension, Film, Reward, Score, scored

_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The rewards of one role, one a dimension, and beside them plain measures by name, all from one look at a film."""

    role: str
    rewards: tuple[Reward, ...]
    measures: tuple[str, ...]
    measure: Callable[[Film], dict[str, float]]

    @property
    def digests(self) -> dict[str, str]:
        """The hash of each dimension's reward."""
        return {reward.dimension.value: reward.digest for reward in self.rewards}

    @property
    def digest(self) -> str:
        """One hash of all of them."""
        return key_of(self.digests)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmScores:
    """What a film got: a score a dimension, the plain measures, and what it cost."""

    ask: Ask
    scores: dict[Dimension, Score]
    measures: dict[str, float] = field(default_factory=dict)
    nfe: int
    seconds: float


class Scorer:
    """Scores films once; what was scored is read back."""

    def __init__(self, judges: Judges, root: Path) -> None:
        self.judges = judges
        code = hashlib.sha256(f"{judges.digest} {judging_digest()} {judges.measures}".encode()).hexdigest()
        self._root = root / code[:16]

    def score(self, cabinet: FilmCabinet, asks: Sequence[Ask], progress: Progress) -> list[FilmScores]:
        """The scores of films that have been made, in order. RewardError when a reward fails on one."""
        missing = [ask for ask in dict.fromkeys(asks) if not self._path(cabinet.key(ask)).is_file()]
        done = len(asks) - len(missing)
        progress(done, len(asks))
        for start in range(0, len(missing), _BATCH):
            films = list(cabinet.films(missing[start : start + _BATCH]))
            for made, found in zip(films, self._judge(cabinet.arm.name, films), strict=True):
                write_whole(self._path(made.key), _to_json(found))
            done += len(films)
            progress(done, len(asks))
        return [_from_json(self._path(cabinet.key(ask)), ask) for ask in asks]

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / f"{key}.json"

    def _judge(self, arm: str, made: Sequence[MadeFilm]) -> Iterator[FilmScores]:
        films = [
            Film(name=f"{arm}, seed {m.ask.seed}: {m.ask.prompt}", prompt=m.ask.prompt, frames=m.frames, fps=m.fps)
            for m in made
        ]
        by_dimension = {reward.dimension: scored(reward, films) for reward in self.judges.rewards}
        for index, (film, one) in enumerate(zip(films, made, strict=True)):
            yield FilmScores(
                ask=one.ask,
                scores={dimension: scores[index] for dimension, scores in by_dimension.items()},
                measures=self.judges.measure(film),
                nfe=one.nfe,
                seconds=one.seconds,
            )


def _to_json(found: FilmScores) -> bytes:
    scores = {d.value: {"value": s.value, "noise": s.noise, "parts": s.parts} for d, s in found.scores.items()}
    return json.dumps(
        {"scores": scores, "measures": found.measures, "nfe": found.nfe, "seconds": found.seconds}
    ).encode()


def _from_json(path: Path, ask: Ask) -> FilmScores:
    content = json.loads(path.read_text(encoding="utf-8"))
    return FilmScores(
        ask=ask,
        scores={Dimension(d): Score(**s) for d, s in content["scores"].items()},
        measures=content["measures"],
        nfe=content["nfe"],
        seconds=content["seconds"],
    )
