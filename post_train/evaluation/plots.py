"""Plots of a comparison: differences with their intervals, and every pair's two totals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from engines.whole_writes import write_whole

_COLOURS = {1: "#1b7837", 0: "#999999", -1: "#b2182b"}
_DPI = 110


def write_plots(folder: Path, told: dict[str, Any], items: list[dict[str, Any]]) -> list[str]:
    """Writes all plots below `folder` and returns their paths relative to it."""
    # No pyplot: its state is the process's, and its windows would need a screen.
    from matplotlib.figure import Figure  # noqa: PLC0415  (a second to import, and only reports need it)

    paths = []
    for name, draw in (("differences", _differences), ("kinds", _kinds), ("pairs", _pairs)):
        figure = Figure(figsize=(7, 4), layout="constrained")
        draw(figure.add_subplot(), told, items)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        write_whole(folder / "plots" / f"{name}.png", buffer.getvalue())
        paths.append(f"plots/{name}.png")
    return paths


def _bars(axes: Any, rows: list[tuple[str, dict[str, float | None]]]) -> None:
    """Means with their intervals, one a line, against zero."""
    for place, (_, found) in enumerate(reversed(rows)):
        mean, low, high = found["mean"], found["low"], found["high"]
        if mean is None:
            continue
        if low is None or high is None:
            low = high = mean
        # A bootstrap interval of few prompts may leave out its mean by a rounding.
        axes.errorbar(
            mean, place, xerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]], fmt="o", color="#2166ac", capsize=4
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.axvline(0, color="black", linewidth=0.8)


def _differences(axes: Any, told: dict[str, Any], _items: list[dict[str, Any]]) -> None:
    rows = [("auto-GSB", {"mean": told["gsb"], "low": told["gsb_low"], "high": told["gsb_high"]})]
    for name, spread in told["scale"]["dimensions"].items():
        found = told["differences"][name]
        unit = spread["deviation"]
        rows.append((name.upper(), {k: None if v is None else v / unit for k, v in found.items()}))
    _bars(axes, rows)
    axes.set_xlabel("GSB; TA, MQ and VQ in deviations of the base's films")
    axes.set_title(f"{told['a']['name']} minus {told['b']['name']}, {told['n']} prompts, 95 % intervals")


def _kinds(axes: Any, told: dict[str, Any], _items: list[dict[str, Any]]) -> None:
    rows = [
        (f"{kind} ({v['n']})", {"mean": v["gsb"], "low": v["gsb_low"], "high": v["gsb_high"]})
        for kind, v in told["kinds"].items()
    ]
    _bars(axes, rows)
    axes.set_xlim(-1.05, 1.05)
    axes.set_title("auto-GSB by kind of prompt")


def _pairs(axes: Any, told: dict[str, Any], items: list[dict[str, Any]]) -> None:
    for outcome, name in ((1, "good"), (0, "same"), (-1, "bad")):
        own = [i for i in items if i["outcome"] == outcome]
        axes.scatter(
            [i["b"]["total"] for i in own],
            [i["a"]["total"] for i in own],
            s=14,
            color=_COLOURS[outcome],
            label=f"{name} ({len(own)})",
        )
    axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
    axes.set_xlabel(f"sum of z-scores, B {told['b']['name']}")
    axes.set_ylabel(f"sum of z-scores, A {told['a']['name']}")
    axes.set_title("every pair")
    axes.legend()
