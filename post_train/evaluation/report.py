"""A comparison as Markdown for people, written from the same object that `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_NAMES = {
    "ta": "text alignment (TA)",
    "mq": "motion quality (MQ)",
    "vq": "visual quality (VQ)",
    "dynamic_degree": "dynamic degree",
    "temporal_flickering": "temporal flicker (1 is none)",
    "diversity": "diversity over seeds",
    "nfe": "NFE a film",
    "seconds": "seconds a film",
    "total": "sum of z-scores",
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _signed(found: dict[str, float | None] | None) -> str:
    """A difference with its interval, bold where the interval leaves out zero."""
    if found is None or found["mean"] is None:
        return "n/a"
    if found["low"] is None or found["high"] is None:
        return f"{found['mean']:+.3f}"
    text = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def markdown(told: dict[str, Any], *, plots: Sequence[str] = (), sheets: Sequence[str] = ()) -> str:
    """The report of a summary; `plots` and `sheets` are pictures beside it."""
    parts = [_head(told)]
    if told["by"] == "judge":
        parts += [_dimensions(told), _attributes(told), _kinds(told), _needed(told), _method(told)]
    else:
        parts.append(_rater(told))
    parts += [f"![{name}]({name})" for name in (*plots, *sheets)]
    if told.get("refused"):
        parts.append(_refused(told))
    return "\n\n".join(parts) + "\n"


def _verdict(told: dict[str, Any]) -> str:
    if told["gsb_low"] > 0:
        return "A wins: the interval is above zero."
    if told["gsb_high"] < 0:
        return "B wins: the interval is below zero."
    return "No winner: the interval holds zero."


def _head(told: dict[str, Any]) -> str:
    name = "auto-GSB" if told["by"] == "judge" else "GSB"
    tie = f", tie below {told['tie_threshold']:.3f} deviations" if told["by"] == "judge" else ""
    return (
        f"# A {told['a']['name']} against B {told['b']['name']}\n\n"
        f"**{name} {told['gsb']:+.3f} [{told['gsb_low']:+.3f}, {told['gsb_high']:+.3f}]** over {told['n']} prompts of "
        f"`{told['prompts']}`: {told['good']} good, {told['same']} same, {told['bad']} bad{tie}. {_verdict(told)}"
    )


def _dimensions(told: dict[str, Any]) -> str:
    a, b, differences = told["a"], told["b"], told["differences"]
    rows = [
        [_NAMES.get(k, k), _figure(a[k]), _figure(b[k]), _signed(differences.get(k))]
        for k in ("ta", "mq", "vq", "dynamic_degree", "temporal_flickering", "diversity", "nfe", "seconds")
        if k in a
    ]
    rows.append([_NAMES["total"], "", "", _signed(differences["total"])])
    if a["prompt_sensitivity"]:
        sensitivity = [_signed(side["prompt_sensitivity"]) for side in (a, b)]
        rows.append(["prompt sensitivity (TA, captions minus paraphrases)", *sensitivity, ""])
    return "## Figures\n\n" + _table(["", "A", "B", "A minus B, 95 % interval"], rows)


def _attributes(told: dict[str, Any]) -> str:
    rows = [
        [name, str(v["n"]), _figure(v["a"]), _figure(v["b"]), _signed(v["difference"])]
        for name, v in told["attributes"].items()
    ]
    head = ["asked for", "prompts", "A", "B", "A minus B"]
    return "## What text alignment is made of\n\n" + _table(head, rows) if rows else ""


def _kinds(told: dict[str, Any]) -> str:
    rows = []
    for kind, v in told["kinds"].items():
        gsb = {"mean": v["gsb"], "low": v["gsb_low"], "high": v["gsb_high"]}
        sides = [_figure(v[side][d]) for d in ("ta", "mq", "vq") for side in ("a", "b")]
        rows.append([kind, str(v["n"]), _signed(gsb), *sides])
    head = ["kind", "prompts", "auto-GSB", "TA A", "TA B", "MQ A", "MQ B", "VQ A", "VQ B"]
    note = "The figures above are about familiar, composition and typed prompts; the other kinds come on top."
    return f"## By kind of prompt\n\n{_table(head, rows)}\n\n{note}"


def _needed(told: dict[str, Any]) -> str:
    needed = told["needed_prompts"]
    rows = [
        [name, _figure(v["spread"]), effect, str(count)]
        for name, v in needed.items()
        if isinstance(v, dict)
        for effect, count in v["prompts"].items()
    ]
    if not rows:
        return ""
    formula = (
        "n = ((z₀.₉₇₅ + z₀.₈) · spread / effect)², for an interval that excludes zero in 80 % of experiments; the "
        "spread is the standard deviation of the difference over the prompts here."
    )
    return (
        f"## How many prompts an effect needs\n\n{_table(['figure', 'spread', 'effect', 'prompts'], rows)}\n\n{formula}"
    )


def _method(told: dict[str, Any]) -> str:
    scale, a, judge = told["scale"], told["a"], told["judge"]
    sampler = a["sampler"]
    frozen = (
        "taken from B's films, because no frozen scale was there: figures of two such reports cannot be compared"
        if scale["provisional"]
        else f"frozen on {scale['films']} films of {scale['model']!r} ({scale['weights'][:12]})"
    )
    lines = [
        f"- Judge: {judge['role']}, " + ", ".join(f"{d} {h[:12]}" for d, h in judge["digests"].items()) + ".",
        (
            f"- Weights: A {a['weights'][:12]}, B {told['b']['weights'][:12]}. Seeds of each prompt: {told['seeds']}, "
            "the same for both."
        ),
        (
            f"- Sampler of A: {sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance_scale']:g}, "
            f"shift {sampler['flow_shift']:g}, {sampler['width']}x{sampler['height']}x{sampler['num_frames']}."
        ),
        f"- Scale of the z-scores: {frozen}.",
        (
            "- GSB = (G - B) / (G + S + B) on the sum of TA, MQ and VQ, each in deviations of the base; a tie is a "
            "difference under the judge's own standard error. It is a judge's verdict, not people's."
        ),
        "- Intervals: 10,000 bootstrap resamples of prompts; seeds of one prompt stay together.",
        "- A frozen film has no flicker and moves smoothly, so flicker says something only beside dynamic degree.",
        (
            "- Diversity: root mean square difference between films of one prompt with different seeds, on means of "
            "8x8 pixels, as a share of full scale."
        ),
    ]
    return "## How it was measured\n\n" + "\n".join(lines)


def _rater(told: dict[str, Any]) -> str:
    skipped = told["skipped"]
    return (
        f"Rated blind by {told['rater']!r}: {told['n']} items, sides shuffled with seed {told['shuffle_seed']}"
        + (f", {skipped} left out" if skipped else "")
        + f". A was on the left in {told['a_left']} of them; the left side was chosen {told['left_chosen']} times."
    )


def _refused(told: dict[str, Any]) -> str:
    rows = [[r["prompt"], r["why"]] for r in told["refused"]]
    return "## Prompts that were not scored\n\n" + _table(["prompt", "why"], rows)
