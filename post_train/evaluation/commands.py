"""The command that post-training's evaluation brings to the `rushes` command line."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from post_train.evaluation.prompts import PromptSet
    from post_train.evaluation.run import Wanted

_RUNS = Path("runs")
_SPOILT_CLIPS = 250
_CONSOLE = Console(stderr=True)


def evaluate(
    a: Annotated[str | None, typer.Argument(help="The candidate: base, sft, ... or a model folder.")] = None,
    b: Annotated[str | None, typer.Argument(help="The baseline; positive figures mean that A wins over it.")] = None,
    prompts: Annotated[
        str, typer.Option(help="held_out, validation, or a text file with a prompt a line.")
    ] = "held_out",
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=1,
            help="How many full captions, lines or (with --spoilt) clips.",
            show_default="300, 100, the whole file, or 250 clips",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Films of each prompt.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the report.", show_default="runs/evaluate/A-B-PROMPTS")
    ] = None,
    judge: Annotated[str, typer.Option(help="held_out, validation or reward.")] = "held_out",
    spoilt: Annotated[
        bool, typer.Option("--spoilt", help="Compare no models: hold the judge itself against clips spoilt on purpose.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Judge nothing: write the page on which a person rates the films blind.")
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(help="Judge nothing: make the report of what a person rated on the page.")
    ] = None,
    shuffle_seed: Annotated[
        int | None, typer.Option(min=0, help="Decides the page's sides and order.", show_default="drawn")
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help="Freeze the scale of the figures on B's films, before any candidate exists."),
    ] = False,
    scale: Annotated[
        Path | None, typer.Option(help="A frozen scale.", show_default="the one that ships with the judge")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where films and scores are kept.")] = _RUNS / "evaluate-cache",
) -> None:
    """Compare two models on held-out prompts: a judge's figures with intervals, or a page for people to rate."""
    if ratings is not None:
        _by_ratings(ratings, out, json_output=json_output)
        return
    if spoilt:
        _on_spoilt(judge, n or _SPOILT_CLIPS, out, json_output=json_output)
        return
    if a is None or b is None:
        raise ValueError(
            "name a candidate A and a baseline B, as in `rushes evaluate sft base`; or give --ratings FILE"
        )
    found = _load_prompts(prompts, n)
    folder = out or _RUNS / "evaluate" / "-".join(Path(name).name for name in (a, b, found.name))
    wanted = _wanted(a, b, found, seeds=seeds, cache=cache, out=folder, scale=scale, freeze=freeze)
    if page is not None:
        _page(wanted, page, shuffle_seed, json_output=json_output)
    else:
        _by_judges(wanted, judge, json_output=json_output)


def _load_prompts(source: str, count: int | None) -> PromptSet:
    from post_train.evaluation.prompts import load_prompts  # noqa: PLC0415

    return load_prompts(source, count)


def _wanted(a: str, b: str, prompts: PromptSet, **options: Any) -> Wanted:
    """The comparison of two models by name; says which prompts are not scored."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: several threads then do not spin
    from post_train.evaluation.arms import find_arm  # noqa: PLC0415
    from post_train.evaluation.run import Wanted, within_limits  # noqa: PLC0415

    arms = find_arm(a), find_arm(b)
    fitting = within_limits(prompts, *arms)
    for refused in fitting.refused:
        _CONSOLE.print(f"not scored: {refused.text!r}: {refused.why}", highlight=False, markup=False, soft_wrap=True)
    return Wanted(a=arms[0], b=arms[1], prompts=fitting, **options)


def _page(wanted: Wanted, page: Path, shuffle_seed: int | None, *, json_output: bool) -> None:
    from post_train.evaluation.run import prepare_page  # noqa: PLC0415

    seed = secrets.randbelow(2**31) if shuffle_seed is None else shuffle_seed
    count = prepare_page(wanted, page, seed, _CONSOLE)
    told = {"page": str(page), "n": count, "shuffle_seed": seed}
    _tell(told, f"{count} pairs to rate: {page}", json_output=json_output)


def _by_judges(wanted: Wanted, judge: str, *, json_output: bool) -> None:
    from post_train.evaluation import judging  # noqa: PLC0415
    from post_train.evaluation.run import evaluate_by_judges  # noqa: PLC0415

    told = evaluate_by_judges(wanted, judging.load_judges(judge), _CONSOLE)
    _tell(told, _sentence(told, wanted.out), json_output=json_output)


def _on_spoilt(judge: str, clips: int, out: Path | None, *, json_output: bool) -> None:
    from post_train.evaluation import judging  # noqa: PLC0415
    from post_train.evaluation.run import evaluate_on_spoilt  # noqa: PLC0415

    judges = judging.load_judges(judge)
    folder = out or _RUNS / "evaluate" / f"spoilt-{judges.role}"
    told = evaluate_on_spoilt(judges, clips, folder, _CONSOLE)
    worst = min(told["wins"], key=lambda w: w["share"])
    sentence = (
        f"the true clip wins least over {worst['kind']} ({worst['dimension']}): {worst['share']:.3f} of {worst['n']} "
        f"pairs; report: {folder / 'spoilt.md'}"
    )
    _tell(told, sentence, json_output=json_output)


def _by_ratings(ratings: Path, out: Path | None, *, json_output: bool) -> None:
    from post_train.evaluation.run import evaluate_by_ratings  # noqa: PLC0415

    folder = out or _RUNS / "evaluate" / ratings.stem
    told = evaluate_by_ratings(ratings, folder)
    _tell(told, _sentence(told, folder), json_output=json_output)


def _sentence(told: dict[str, Any], out: Path) -> str:
    name = "auto-GSB" if told["by"] == "judge" else f"GSB by {told['rater']}"
    return (
        f"{name} of {told['a']['name']} over {told['b']['name']}: {told['gsb']:+.3f} "
        f"[{told['gsb_low']:+.3f}, {told['gsb_high']:+.3f}] on {told['n']} prompts; report: {out / 'report.md'}"
    )


def _tell(content: dict[str, Any], sentence: str, *, json_output: bool) -> None:
    sys.stdout.write((json.dumps(content) if json_output else sentence) + "\n")
