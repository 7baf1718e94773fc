"""The command that post-training's evaluation brings to the `rushes` command line."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

_RUNS = Path("runs")


def evaluate(
    a: Annotated[str | None, typer.Argument(help="The candidate: base, sft, ... or a model folder.")] = None,
    b: Annotated[str | None, typer.Argument(help="The baseline; positive figures mean that A wins over it.")] = None,
    prompts: Annotated[
        str, typer.Option(help="held_out, validation, or a text file with a prompt a line.")
    ] = "held_out",
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="How many full captions or lines.", show_default="300, 100, or the whole file"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Films of each prompt.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the report.", show_default="runs/evaluate/A-B-PROMPTS")
    ] = None,
    judge: Annotated[str, typer.Option(help="held_out, validation or reward.")] = "held_out",
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
    console = Console(stderr=True)
    if ratings is not None:
        _by_ratings(ratings, out, json_output=json_output)
        return
    if a is None or b is None:
        raise ValueError(
            "name a candidate A and a baseline B, as in `rushes evaluate sft base`; or give --ratings FILE"
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from post_train.evaluation import judging, run  # noqa: PLC0415  these load numpy, pydantic and more
    from post_train.evaluation.arms import find_arm  # noqa: PLC0415
    from post_train.evaluation.prompts import load_prompts  # noqa: PLC0415

    found = load_prompts(prompts, n)
    arms = find_arm(a), find_arm(b)
    wanted = run.Wanted(
        a=arms[0],
        b=arms[1],
        prompts=run.within_limits(found, *arms),
        seeds=seeds,
        cache=cache,
        out=out or _RUNS / "evaluate" / "-".join(Path(name).name for name in (a, b, found.name)),
        scale=scale,
        freeze=freeze,
    )
    for refused in wanted.prompts.refused:
        console.print(f"not scored: {refused.text!r}: {refused.why}", highlight=False, markup=False, soft_wrap=True)
    if page is not None:
        seed = secrets.randbelow(2**31) if shuffle_seed is None else shuffle_seed
        count = run.prepare_page(wanted, page, seed, console)
        _tell({"page": str(page), "n": count, "shuffle_seed": seed}, f"{count} pairs to rate: {page}", json_output)
        return
    told = run.evaluate_by_judges(wanted, judging.load_judges(judge), console)
    _tell(told, _sentence(told, wanted.out), json_output)


def _by_ratings(ratings: Path, out: Path | None, *, json_output: bool) -> None:
    from post_train.evaluation.run import evaluate_by_ratings  # noqa: PLC0415

    folder = out or _RUNS / "evaluate" / ratings.stem
    told = evaluate_by_ratings(ratings, folder)
    _tell(told, _sentence(told, folder), json_output)


def _sentence(told: dict[str, Any], out: Path) -> str:
    name = "auto-GSB" if told["by"] == "judge" else f"GSB by {told['rater']}"
    return (
        f"{name} of {told['a']['name']} over {told['b']['name']}: {told['gsb']:+.3f} "
        f"[{told['gsb_low']:+.3f}, {told['gsb_high']:+.3f}] on {told['n']} prompts; report: {out / 'report.md'}"
    )


def _tell(content: dict[str, Any], sentence: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(content) if as_json else sentence) + "\n")
