"""Runs of policy optimisation held against one another: validation score against what training had cost.

Legend: P validation prompts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.whole_writes import write_whole
from post_train.checkpoint import checkpoints, read_manifest
from post_train.evaluation.statistics import Interval, interval

_DPI = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run: its arm (what it varies), seed, and its looks, oldest first."""

    arm: str
    seed: int
    looks: tuple[dict[str, Any], ...]

    @property
    def best(self) -> dict[str, Any]:
        return max(self.looks, key=lambda look: look["score"])

    @property
    def gain(self) -> Interval:
        """The best look's total minus the first's, paired by prompt; the choice of the best makes it a bit too high."""
        return self.gain_at(self.best)

    def gain_at(self, look: dict[str, Any]) -> Interval:
        """A look's total minus the first one's, over prompts."""
        return interval(np.array(look["totals"]) - np.array(self.looks[0]["totals"]))

    def cost_of(self, score: float) -> int | None:
        """The forwards behind which the run was first seen at such a score; None if it never was."""
        return next((look["forwards"] for look in self.looks if look["score"] >= score), None)


def read_curve(run: Path) -> Curve:
    """The curve of a run folder. ValueError where it has none."""
    log, found = run / "validation.jsonl", checkpoints(run)
    manifest = read_manifest(found[-1]) if found else None
    if not log.is_file() or manifest is None:
        raise ValueError(f"{run} is no run of policy optimisation that was validated; name its folder")
    looks = tuple(json.loads(line) for line in log.read_text().splitlines())
    return Curve(arm=_arm(manifest), seed=manifest["seed"], looks=looks)


def _arm(manifest: dict[str, Any]) -> str:
    """The preset, and what was left out of it."""
    method = manifest["recipe_content"]["policy"]["method"]
    parts = [manifest["preset"]]
    if manifest["preset"] == "flash":
        parts += ["without rectification"] if method["weighting"] == "equal" else []
        parts += ["without iso-temporal groups"] if not method["selector"]["shared"] else []
    return ", ".join(parts)


def write_curves(runs: Sequence[Path], folder: Path) -> str:
    """Writes `curves.png` and `curves.md` of runs into `folder`; returns the text."""
    curves = sorted((read_curve(run) for run in runs), key=lambda c: (c.arm, c.seed))
    _draw(curves, folder / "curves.png")
    text = table(curves)
    write_whole(folder / "curves.md", text.encode())
    return text


def table(curves: Sequence[Curve]) -> str:
    """Markdown: each run's gain with its interval, and what reaching the least of all best scores had cost it."""
    common = min(curve.best["score"] for curve in curves)
    reach = f"forwards to {common:+.2f}"
    heads = ("arm", "seed", "updates", "forwards", "best at", "gain in total [95 %]", "TA", "MQ", "VQ", reach)
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for curve in curves:
        last, best, gain, cost = curve.looks[-1], curve.best, curve.gain, curve.cost_of(common)
        means = " | ".join(
            f"{best['means'].get(d, float('nan')) - curve.looks[0]['means'].get(d, float('nan')):+.3f}"
            for d in ("ta", "mq", "vq")
        )
        rows.append(
            f"| {curve.arm} | {curve.seed} | {last['step']} | {last['forwards']:,} | {best['step']} | "
            f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] | {means} | "
            f"{'never' if cost is None else f'{cost:,}'} |"
        )
    count = len(curves[0].looks[0]["totals"])
    rows.append(
        f"\nTotals are sums of TA, MQ and VQ of the validating judge in deviations of the first look's films, {count} "
        "prompts, one seed each, by the serving sampler. A forward is one row through the transformer; one with "
        "gradients counts 3."
    )
    return "\n".join(rows) + "\n"


def _draw(curves: Sequence[Curve], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415  (a second to import, and only reports need it)

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    for curve in curves:
        cost = [look["forwards"] for look in curve.looks]
        gains = [curve.gain_at(look) for look in curve.looks]
        colour = f"C{arms.index(curve.arm)}"
        first = next(c for c in curves if c.arm == curve.arm) is curve
        axes.plot(cost, [g.mean for g in gains], "o-", color=colour, markersize=3, label=curve.arm if first else None)
        axes.fill_between(cost, [g.low for g in gains], [g.high for g in gains], color=colour, alpha=0.1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("forwards (rows; with gradients 3)")
    axes.set_ylabel("gain in total")
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    write_whole(path, buffer.getvalue())
