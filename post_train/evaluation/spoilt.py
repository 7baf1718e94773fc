"""Holds a role's judges against clips spoilt in known ways: the true clip must win on the dimension that is hurt.

Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from post_train.data.diorama.corruptions import CORRUPTIONS, Corruption, Frames
from post_train.data.diorama.record import Clip
from post_train.data.diorama.world import VERSION, make_clip
from post_train.evaluation.films import Progress
from post_train.evaluation.scoring import Judges
from post_train.evaluation.statistics import Interval, share_interval
from post_train.rewards.base import Dimension, Film, Reward, scored

FIRST_SEED = 3_300_000_000  # of clips that no judge and no model is trained on
_FPS = 8
_WEAKEST = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wins:
    """In how many of `n` pairs the true clip scored higher on `dimension`; a tie is no win."""

    kind: str
    dimension: Dimension
    kept_out: bool
    won: int
    n: int

    @property
    def share(self) -> Interval:
        """The share won, with its 95 % interval."""
        return share_interval(self.won, self.n)


def hold_against_spoilt(judges: Judges, clips: int, progress: Progress, *, first: int = FIRST_SEED) -> list[Wins]:
    """Wins over every kind of corruption on each dimension it hurts, in pairs of `clips` clips.

    A kind has fewer pairs where a clip holds nothing that it could harm. Strengths are even over 0.3 to 1; a frozen
    clip never moves.
    """
    won: dict[tuple[str, Dimension], list[bool]] = {}
    for done in range(clips):
        clip = make_clip(first + done)
        spoilt = dict(_spoilt(clip))
        for reward in judges.rewards:
            kinds = [k for k in spoilt if reward.dimension in CORRUPTIONS[k].hurts]
            for kind, ahead in zip(kinds, _ahead(reward, clip, [spoilt[k] for k in kinds]), strict=True):
                won.setdefault((kind, reward.dimension), []).append(ahead)
        progress(done + 1, clips)
    return [
        Wins(kind=k, dimension=d, kept_out=CORRUPTIONS[k].kept_out, won=sum(found), n=len(found))
        for (k, d), found in sorted(won.items(), key=lambda item: (tuple(Dimension).index(item[0][1]), item[0][0]))
    ]


def _spoilt(clip: Clip) -> Iterator[tuple[str, Frames]]:
    for number, (name, corruption) in enumerate(CORRUPTIONS.items()):
        rng = np.random.default_rng((clip.seed, number))
        frames = corruption.of(clip, _strength(corruption, rng), rng)
        if frames is not None:
            yield name, frames


def _strength(corruption: Corruption, rng: np.random.Generator) -> float:
    return 1.0 if corruption.name == "frozen" else float(rng.uniform(_WEAKEST, 1))


def _ahead(reward: Reward, clip: Clip, spoilt: Sequence[Frames]) -> list[bool]:
    """Whether the true clip has the higher score than each of `spoilt`, all under its full caption."""
    films = [
        Film(name=f"clip {clip.seed}, take {i}", prompt=clip.captions.full.text, frames=frames, fps=_FPS)
        for i, frames in enumerate((clip.frames, *spoilt))
    ]
    true, *others = scored(reward, films)
    return [true.value > other.value for other in others]


def spoilt_report(judges: Judges, found: Sequence[Wins], clips: int) -> dict[str, object]:
    """What was found as one JSON object."""
    return {
        "judge": {"role": judges.role, "digests": judges.digests},
        "world_version": VERSION,
        "clips": clips,
        "first_seed": FIRST_SEED,
        "wins": [
            {
                "kind": w.kind,
                "dimension": w.dimension.value,
                "kept_out": w.kept_out,
                "won": w.won,
                "n": w.n,
                "share": round(w.share.mean, 4),
                "low": round(w.share.low, 4),
                "high": round(w.share.high, 4),
            }
            for w in found
        ],
    }


def spoilt_markdown(judges: Judges, found: Sequence[Wins], clips: int, *, bar: float = 0.97) -> str:
    """The same for people, with kinds under `bar` in bold."""
    how = (
        f"{clips} clips of world {VERSION} from seed {FIRST_SEED}, which nothing is trained on. Strengths are even "
        f"over {_WEAKEST} to 1. A kind that is kept out is in no judge's training. In bold: under {bar:.0%}."
    )
    lines = [
        f"# The {judges.role} judge against spoilt clips",
        "",
        how,
        "",
        "| hurts | kind | kept out | true clip wins | 95 % interval | pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for w in found:
        share = w.share
        shown = f"{share.mean:.3f}" if share.mean >= bar else f"**{share.mean:.3f}**"
        out = "yes" if w.kept_out else ""
        lines.append(
            f"| {w.dimension.value} | {w.kind} | {out} | {shown} | {share.low:.3f} to {share.high:.3f} | {w.n} |"
        )
    return "\n".join(lines) + "\n"
