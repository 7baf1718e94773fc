"""Compares two arms on a set of prompts: films, scores, and everything that is said about the difference.

Legend: P prompts, K seeds of each, F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from post_train.evaluation.arms import Arm
from post_train.evaluation.diversity import diversity
from post_train.evaluation.films import Ask, FilmCabinet, MadeFilm, Progress, asks_of
from post_train.evaluation.gsb import Gsb, Outcomes, gsb_of, outcomes, tie_threshold
from post_train.evaluation.prompts import Prompt, PromptKind, PromptSet
from post_train.evaluation.scale import Scale
from post_train.evaluation.scoring import FilmScores, Judges, Scorer
from post_train.evaluation.statistics import Floats, Interval, interval
from post_train.rewards.base import Dimension

# Diversity needs several films of one prompt, so it is taken on a quarter of the prompts, 2 to 64 of them: prompts
# differ so much in it that ten of them are not enough to tell what a model lost.
_VARIED_SHARE, _FEWEST_VARIED, _MOST_VARIED, _VARIED_SEEDS = 0.25, 2, 64, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """All that one arm got: its scored films by prompt and seed, and how far films of one prompt lie apart [P']."""

    arm: Arm
    cabinet: FilmCabinet
    found: dict[Ask, FilmScores]
    distances: Floats

    @property
    def diversity(self) -> Interval:
        """The mean distance between films of one prompt with different seeds, over prompts."""
        return interval(self.distances)

    def values(self, prompts: Sequence[Prompt], seeds: int, read: Callable[[FilmScores], float]) -> Floats:
        """`read` of every film, [P, K]."""
        return np.array([[read(self.found[ask]) for ask in asks_of(p, seeds)] for p in prompts], dtype=np.float64)

    def mean(self, prompts: Sequence[Prompt], seeds: int, read: Callable[[FilmScores], float]) -> Interval:
        """The mean of `read` over prompts with its interval."""
        return interval(self.values(prompts, seeds, read).mean(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides judged on one set; positive differences and GSB mean that A wins."""

    a: Side
    b: Side
    prompts: PromptSet
    seeds: int
    judges: Judges
    scale: Scale
    threshold: float

    def difference(self, prompts: Sequence[Prompt], read: Callable[[FilmScores], float]) -> Interval:
        """The paired difference of `read`, A minus B, over prompts."""
        return interval(self.differences(prompts, read).mean(axis=1))

    def differences(self, prompts: Sequence[Prompt], read: Callable[[FilmScores], float]) -> Floats:
        """A minus B for every pair, [P, K]."""
        return self.a.values(prompts, self.seeds, read) - self.b.values(prompts, self.seeds, read)

    def outcomes(self, prompts: Sequence[Prompt]) -> Outcomes:
        """Good, same or bad for every pair, [P, K]."""
        return outcomes(self.differences(prompts, self.scale.total), self.threshold)

    def gsb(self, prompts: Sequence[Prompt]) -> Gsb:
        """auto-GSB over `prompts`."""
        return gsb_of(self.outcomes(prompts))

    def of_kind(self, kind: PromptKind) -> tuple[Prompt, ...]:
        """The prompts of one kind."""
        return tuple(p for p in self.prompts.prompts if p.kind is kind)

    def sensitivity(self, side: Side) -> Interval | None:
        """Text alignment on full captions minus that on paraphrases of the same clips; None without paraphrases."""
        full = {p.clip: p for p in self.prompts.headline}
        told = [p for p in self.of_kind(PromptKind.PARAPHRASE) if p.clip in full]
        if not told:
            return None
        alignment = score_of(Dimension.TEXT_ALIGNMENT)
        on_full = side.values([full[p.clip] for p in told], self.seeds, alignment)
        return interval((on_full - side.values(told, self.seeds, alignment)).mean(axis=1))


def score_of(dimension: Dimension) -> Callable[[FilmScores], float]:
    """Reads one dimension off a film's scores."""
    return lambda found: found.scores[dimension].value


def vbench_of(name: str) -> Callable[[FilmScores], float]:
    """Reads one of VBENCH off a film's scores."""
    return lambda found: found.scores[Dimension.MOTION_QUALITY].parts[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is made and judged: the prompts, how many seeds of each, where films and scores are kept."""

    prompts: PromptSet
    seeds: int
    films: Path
    scores: Path


def take_side(arm: Arm, plan: Plan, judges: Judges, progress: Callable[[str], Progress]) -> Side:
    """Makes and scores all films of one arm; `progress(what)` gives the counter of a stage."""
    cabinet = FilmCabinet(arm, plan.films)
    judged = [ask for prompt in plan.prompts.prompts for ask in asks_of(prompt, plan.seeds)]
    headline, seeds = plan.prompts.headline, max(plan.seeds, _VARIED_SEEDS)
    varied = headline[: min(_MOST_VARIED, max(_FEWEST_VARIED, round(_VARIED_SHARE * len(headline))))]
    extra = [ask for prompt in varied for ask in asks_of(prompt, seeds)]
    cabinet.fill([*judged, *extra], progress(f"films of {arm.name}"))
    found = Scorer(judges, plan.scores).score(cabinet, judged, progress(f"scores of {arm.name}"))
    apart = [diversity([film.frames for film in cabinet.films(asks_of(prompt, seeds))]) for prompt in varied]
    return Side(arm=arm, cabinet=cabinet, found=dict(zip(judged, found, strict=True)), distances=np.array(apart))


def compare(a: Side, b: Side, plan: Plan, judges: Judges, scale: Scale) -> Comparison:
    """Holds two sides against each other on `scale`; the tie threshold is the judge's own noise on the headline."""
    noise = [side.values(plan.prompts.headline, plan.seeds, scale.noise) for side in (a, b)]
    return Comparison(
        a=a,
        b=b,
        prompts=plan.prompts,
        seeds=plan.seeds,
        judges=judges,
        scale=scale,
        threshold=tie_threshold(noise[0], noise[1]),
    )


def headline_scores(side: Side, plan: Plan) -> list[FilmScores]:
    """The scores that a scale is taken from."""
    return [side.found[ask] for prompt in plan.prompts.headline for ask in asks_of(prompt, plan.seeds)]


def film_of(side: Side, ask: Ask) -> MadeFilm:
    """One film of a side, read from disk."""
    return next(iter(side.cabinet.films([ask])))


def pairs(comparison: Comparison, prompts: Iterable[Prompt]) -> list[tuple[Prompt, Ask]]:
    """Every (prompt, film asked for) of a comparison."""
    return [(p, ask) for p in prompts for ask in asks_of(p, comparison.seeds)]
