"""Measures the clips of the wild split with a judge, resumably, and writes the list of those that curation keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from post_train.data.clip_measures import ClipMeasures, attributes, measured
from post_train.data.curation import (
    CurationConfig,
    CurationReport,
    balanced_weights,
    emphasised_weights,
    faults,
    report,
)
from post_train.data.diorama.parse import parse_prompt
from post_train.data.diorama.record import Clip, Split
from post_train.data.diorama.world import VERSION, make_captions, make_clip
from post_train.data.diorama_clips import CuratedSeeds
from post_train.data.diorama_truth import wild_faults
from post_train.keys import key_of
from post_train.rewards.base import Film, Reward, scored
from post_train.rewards.motion import Reader

# Counts up whenever a clip would get other measures.
CODE_VERSION = 1
_BATCH = 16
_FPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Which clips are measured, and at what size: the first `clips` seeds, and of `further` ones after them those
    whose caption has the attribute `further_with` (`kind:value`).
    """

    first_seed: int
    clips: int
    side: int
    num_frames: int
    further: int = 0
    further_with: str | None = None

    def seeds(self) -> list[int]:
        """Their seeds, in order; reads the captions of the further ones."""
        end = self.first_seed + self.clips
        further = range(end, end + self.further) if self.further_with else ()
        return [*range(self.first_seed, end), *(s for s in further if self.further_with in self._attributes(s))]

    def _attributes(self, seed: int) -> tuple[str, ...]:
        captions = make_captions(seed, num_frames=self.num_frames, split=Split.WILD)
        return attributes(parse_prompt(captions.full.text).asked)


class MeasureFile:
    """Measures on disk, a JSON line a clip, under a hash of judge, size and code; a broken last line is made anew."""

    def __init__(self, folder: Path, candidates: Candidates, *, reader: Reader, reward: Reward) -> None:
        facts = {
            "reader": reader.digest,
            "reward": reward.digest,
            "side": candidates.side,
            "num_frames": candidates.num_frames,
            "world": VERSION,
            "code": CODE_VERSION,
        }
        key = key_of(facts)[:20]
        self.path = folder / f"measures-{key}.jsonl"

    def read(self) -> dict[str, ClipMeasures]:
        """Everything that was measured so far, by name."""
        if not self.path.is_file():
            return {}
        lines = self.path.read_bytes().split(b"\n")
        whole, torn = lines[:-1], lines[-1]
        if torn:  # a process was killed while it wrote; appending to it would spoil the next line as well
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        return {m.name: m for m in map(_measures, whole)}

    def append(self, some: Sequence[ClipMeasures]) -> None:
        """Adds measures."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(asdict(m)) + "\n" for m in some))


def _measures(line: bytes) -> ClipMeasures:
    content: dict[str, Any] = json.loads(line)
    tuples = {name: tuple(content[name]) for name in ("untold", "unread", "attributes")}
    return ClipMeasures(**{**content, **tuples})


def measure(
    candidates: Candidates,
    folder: Path,
    *,
    reader: Reader,
    reward: Reward,
    tell: Callable[[str], None],
) -> dict[int, ClipMeasures]:
    """Measures of every candidate by seed; those that are on disk are not made again.

    Raises RewardError when the reward gives no score.
    """
    file = MeasureFile(folder, candidates, reader=reader, reward=reward)
    known = file.read()
    seeds = candidates.seeds()
    missing = [s for s in seeds if str(s) not in known]
    for start in range(0, len(missing), _BATCH):
        clips = [_clip(seed, candidates) for seed in missing[start : start + _BATCH]]
        some = list(_measured(clips, reader, reward))
        file.append(some)
        known.update({m.name: m for m in some})
        if start // _BATCH % 20 == 0:
            tell(f"{len(seeds) - len(missing) + start + len(some)} of {len(seeds)} clips measured")
    return {seed: known[str(seed)] for seed in seeds}


def _clip(seed: int, candidates: Candidates) -> Clip:
    return make_clip(seed, side=candidates.side, num_frames=candidates.num_frames, split=Split.WILD)


def _measured(clips: Sequence[Clip], reader: Reader, reward: Reward) -> Iterator[ClipMeasures]:
    """Nothing of a clip is read but its frames and its full caption."""
    parsed = [parse_prompt(c.captions.full.text) for c in clips]
    films = [
        Film(name=str(c.seed), prompt=c.captions.full.text, frames=c.frames, fps=_FPS)
        for c, p in zip(clips, parsed, strict=True)
        if p.readable
    ]
    scores = {f.name: s.value for f, s in zip(films, scored(reward, films), strict=True)} if films else {}
    readings = reader.read([c.frames for c in clips])
    for clip, prompt, reading in zip(clips, parsed, readings, strict=True):
        name = str(clip.seed)
        unread = prompt.unread or (() if prompt.readable else ("nothing is asked for",))
        yield measured(name, clip.frames, prompt.asked, unread, reading, scores.get(name, 0.0))


def curate(
    candidates: Candidates, config: CurationConfig, measures: dict[int, ClipMeasures], *, judge: str
) -> tuple[CuratedSeeds, CurationReport]:
    """The clips to keep with their weights, and what the filters did, held against the truth for the report alone.

    ValueError when nothing is left.
    """
    found = {seed: faults(one, config) for seed, one in measures.items()}
    kept = [seed for seed, names in found.items() if not names]
    truth = {str(seed): wild_faults(seed, candidates.num_frames) for seed in measures}
    done = report({str(seed): names for seed, names in found.items()}, truth)
    if not kept:
        raise ValueError(f"curation keeps none of {len(measures)} clips; look at the thresholds, or at the judge")
    names = [measures[seed].attributes for seed in kept]
    weights = emphasised_weights(balanced_weights(names, config.max_weight), names, config.emphasis)
    how = {"thresholds": asdict(config), "judge": judge, "candidates": asdict(candidates), "report": asdict(done)}
    chosen = CuratedSeeds(
        split=Split.WILD,
        num_frames=candidates.num_frames,
        seeds=tuple(kept),
        weights=tuple(weights),
        how=json.loads(json.dumps(how)),
    )
    return chosen, done
