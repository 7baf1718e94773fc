"""Scores of films by a judge's three rewards, kept on disk under the hashes of film, judge and judging code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.whole_writes import write_whole
from post_train.evaluation.digests import judging_digest
from post_train.evaluation.films import Ask, FilmCabinet, MadeFilm, Progress
from post_train.keys import key_of
from post_train.rewards.base import Dimension, Film, Reward, Score, scored

_BATCH = 32
VBENCH = ("dynamic_degree", "temporal_flickering")
"""What VBench would say of a film's motion, never one without the other: a frozen film flickers least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The rewards of one role, one a dimension. Motion's tells VBENCH among its parts."""

    role: str
    rewards: tuple[Reward, ...]

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
    """What a film got, a score a dimension, and what it cost."""

    ask: Ask
    scores: dict[Dimension, Score]
    nfe: int
    seconds: float


class Scorer:
    """Scores films once; what was scored is read back."""

    def __init__(self, judges: Judges, root: Path) -> None:
        self.judges = judges
        code = hashlib.sha256(f"{judges.digest} {judging_digest()}".encode()).hexdigest()
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
        for index, one in enumerate(made):
            yield FilmScores(
                ask=one.ask,
                scores={dimension: scores[index] for dimension, scores in by_dimension.items()},
                nfe=one.nfe,
                seconds=one.seconds,
            )


def _to_json(found: FilmScores) -> bytes:
    scores = {d.value: {"value": s.value, "noise": s.noise, "parts": s.parts} for d, s in found.scores.items()}
    return json.dumps({"scores": scores, "nfe": found.nfe, "seconds": found.seconds}).encode()


def _from_json(path: Path, ask: Ask) -> FilmScores:
    content = json.loads(path.read_text(encoding="utf-8"))
    return FilmScores(
        ask=ask,
        scores={Dimension(d): Score(**s) for d, s in content["scores"].items()},
        nfe=content["nfe"],
        seconds=content["seconds"],
    )
