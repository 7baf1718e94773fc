"""One evaluation from its options to its files: what `rushes evaluate` does once the words are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engines.whole_writes import write_whole
from post_train.evaluation.arms import Arm
from post_train.evaluation.comparison import Plan, compare, headline_scores, take_side
from post_train.evaluation.films import FilmCabinet, asks_of
from post_train.evaluation.films import Progress as Counter
from post_train.evaluation.plots import write_plots
from post_train.evaluation.prompts import Prompt, PromptSet, Refused
from post_train.evaluation.rating_page import RatedArms, RatedPair, write_page
from post_train.evaluation.ratings import rated_summary, read_ratings
from post_train.evaluation.report import markdown
from post_train.evaluation.scale import frozen_file, measure_scale, read_scale, write_scale
from post_train.evaluation.scoring import Judges
from post_train.evaluation.sheets import write_sheets
from post_train.evaluation.spoilt import hold_against_spoilt, spoilt_markdown, spoilt_report
from post_train.evaluation.summary import items, summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A comparison as it was asked for; `scale` None is the judge's shipped one where there is one."""

    a: Arm
    b: Arm
    prompts: PromptSet
    seeds: int
    cache: Path
    out: Path
    scale: Path | None = None
    freeze: bool = False

    @property
    def plan(self) -> Plan:
        """Where films and scores go, and of which prompts."""
        return Plan(prompts=self.prompts, seeds=self.seeds, films=self.cache / "films", scores=self.cache / "scores")


def within_limits(prompts: PromptSet, *arms: Arm) -> PromptSet:
    """The set without prompts that are longer than one of the models takes."""
    longest = min(arm.card.limits.max_prompt_chars for arm in arms)
    fits = tuple(p for p in prompts.prompts if len(p.text) <= longest)
    why = f"it is longer than the {longest} characters that both models take"
    long = tuple(Refused(text=p.text, why=why) for p in prompts.prompts if len(p.text) > longest)
    found = replace(prompts, prompts=fits, refused=(*prompts.refused, *long))
    if not found.headline:
        raise ValueError(f"no prompt of {prompts.name} is left that both models take (at most {longest} characters)")
    return found


def evaluate_by_judges(wanted: Wanted, judges: Judges, console: Console) -> dict[str, Any]:
    """Films, scores, report and files of one comparison; returns its summary."""
    path = wanted.scale or frozen_file(judges.role)
    # Before hours of films: a scale that no longer holds is told at once.
    frozen = None if wanted.freeze or (wanted.scale is None and not path.is_file()) else read_scale(path, judges)
    plan = wanted.plan
    with _counters(console) as counter:
        b = take_side(wanted.b, plan, judges, counter)
        a = b if wanted.a.digest == wanted.b.digest else take_side(wanted.a, plan, judges, counter)
    if wanted.freeze:
        frozen = measure_scale(wanted.b, judges, plan.prompts.name, headline_scores(b, plan))
        write_scale(path, frozen)
        console.print(f"frozen: {path}", highlight=False, soft_wrap=True)
    scale = frozen or measure_scale(wanted.b, judges, plan.prompts.name, headline_scores(b, plan), provisional=True)
    comparison = compare(replace(a, arm=wanted.a), b, plan, judges, scale)
    told, pairs = summary(comparison), items(comparison)
    plots, sheets = write_plots(wanted.out, told, pairs), write_sheets(wanted.out, comparison)
    _write_report(wanted.out, told, {**told, "items": pairs}, plots=plots, sheets=sheets)
    return told


def evaluate_by_ratings(ratings: Path, out: Path) -> dict[str, Any]:
    """The report of what a person rated; returns its summary."""
    told = rated_summary(read_ratings(ratings))
    _write_report(out, told, told)
    return told


def evaluate_on_spoilt(judges: Judges, clips: int, out: Path, console: Console) -> dict[str, Any]:
    """Holds the judges themselves against spoilt clips; writes what was found and returns it."""
    with _counters(console) as counter:
        found = hold_against_spoilt(judges, clips, counter("clips, true and spoilt"))
    told = spoilt_report(judges, found, clips)
    write_whole(out / "spoilt.json", (json.dumps(told, indent=1) + "\n").encode())
    write_whole(out / "spoilt.md", spoilt_markdown(judges, found, clips).encode())
    return told


def prepare_page(wanted: Wanted, page: Path, shuffle_seed: int, console: Console) -> int:
    """Makes both sides' films and the page on which a person rates them; returns the number of pairs."""
    plan, chosen = wanted.plan, wanted.prompts.headline
    asks = [ask for prompt in chosen for ask in asks_of(prompt, 1)]
    cabinets = [FilmCabinet(arm, plan.films) for arm in (wanted.a, wanted.b)]
    with _counters(console) as counter:
        for cabinet in cabinets:
            cabinet.fill(asks, counter(f"films of {cabinet.arm.name}"))
    pairs = list(_rated_pairs(cabinets[0], cabinets[1], chosen))
    who = [{"name": arm.name, "weights": arm.digest} for arm in (wanted.a, wanted.b)]
    write_page(page, pairs, RatedArms(a=who[0], b=who[1], prompts=wanted.prompts.name), shuffle_seed=shuffle_seed)
    return len(pairs)


def _rated_pairs(a: FilmCabinet, b: FilmCabinet, prompts: tuple[Prompt, ...]) -> Iterator[RatedPair]:
    asks = [ask for prompt in prompts for ask in asks_of(prompt, 1)]
    for ask, left, right in zip(asks, a.films(asks), b.films(asks), strict=True):
        yield RatedPair(prompt=ask.prompt, seed=ask.seed, a=left.frames, b=right.frames, fps=left.fps)


def _write_report(
    out: Path,
    told: dict[str, Any],
    content: dict[str, Any],
    *,
    plots: list[str] | None = None,
    sheets: list[str] | None = None,
) -> None:
    write_whole(out / "report.json", (json.dumps(content, indent=1) + "\n").encode())
    write_whole(out / "report.md", markdown(told, plots=plots or (), sheets=sheets or ()).encode())


@contextmanager
def _counters(console: Console) -> Iterator[Callable[[str], Counter]]:
    """Progress bars, one a stage."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def counter(what: str) -> Counter:
            task = progress.add_task(what, total=None)

            def count(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            return count

        yield counter
