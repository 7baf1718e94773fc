"""Runs of policy optimisation held against one another: validation score against what training had cost.

Legend: P validation prompts.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.whole_writes import write_whole
from post_train.checkpoint import checkpoints, read_manifest
from post_train.evaluation.statistics import Interval, interval
from post_train.policy.equal_score import Rise, cost_ratio
from post_train.policy.panel import NOVELTY

_DPI = 110
_NO_METHOD = {
    *("name", "preset", "seed", "steps", "warmup_steps", "decay_steps", "checkpoint_minutes", "sample_every"),
    *("log_every", "validation", "most_forwards", "floor"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run: its arm (what it varies), seed, looks, oldest first, and its recipe's settings by their paths."""

    arm: str
    seed: int
    looks: tuple[dict[str, Any], ...]
    settings: dict[str, Any] = field(default_factory=dict)

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

    @property
    def rise(self) -> Rise:
        """All looks' gains against what they had cost."""
        totals = np.array([look["totals"] for look in self.looks])
        return Rise(forwards=np.array([float(look["forwards"]) for look in self.looks]), gains=totals - totals[0])


def read_curve(run: Path, *, most_forwards: float = math.inf) -> Curve:
    """The curve of a run folder, as far as `most_forwards` rows went. ValueError where it has none."""
    log, found = run / "validation.jsonl", checkpoints(run)
    manifest = read_manifest(found[-1]) if found else None
    if not log.is_file() or manifest is None:
        raise ValueError(f"{run} is no run of policy optimisation that was validated; name its folder")
    looks = [json.loads(line) for line in log.read_text().splitlines()]
    kept = tuple(look for look in looks if look["forwards"] <= most_forwards)
    settings = _settings(manifest["recipe_content"])
    return Curve(arm=_arm(manifest), seed=manifest["seed"], looks=kept, settings=settings)


def _arm(manifest: dict[str, Any]) -> str:
    """The preset, and what was left out of it."""
    method = manifest["recipe_content"]["policy"]["method"]
    parts = [manifest["preset"]]
    if manifest["preset"] == "flash":
        parts += ["without rectification"] if method["weighting"] == "equal" else []
        parts += ["without iso-temporal groups"] if not method["selector"]["shared"] else []
    parts += ["with novelty"] if any(reward.startswith(NOVELTY) for reward in manifest["rewards"]) else []
    return ", ".join(parts)


def _settings(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A recipe flattened, without what makes no other method of it: seed, length, and how it is looked at."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and key != "validation":
            found |= _settings(value, f"{path}.")
        elif path.rsplit(".", maxsplit=1)[-1] not in _NO_METHOD:
            found[path] = value
    return found


def _told_apart(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, arms named by what differs in them: seeds of one arm are pooled, and must be of one method."""
    named = []
    for curve in curves:
        alike = [other.settings for other in curves if other.arm == curve.arm]
        differ = [k for k, v in curve.settings.items() if any(k in other and other[k] != v for other in alike)]
        named.append(replace(curve, arm=", ".join([curve.arm, *(f"{k} {curve.settings[k]}" for k in differ)])))
    return named


def write_curves(runs: Sequence[Path], folder: Path, *, most_forwards: float = math.inf) -> str:
    """Writes `curves.png` and `curves.md` of runs into `folder`; returns the text.

    Looks behind more than `most_forwards` rows are left out: runs of other lengths compare at equal cost.
    """
    read = _told_apart([read_curve(run, most_forwards=most_forwards) for run in runs])
    curves = sorted(read, key=lambda c: (c.arm, c.seed))
    _draw(curves, folder / "curves.png")
    text = table(curves) + "\n" + costs(curves)
    write_whole(folder / "curves.md", text.encode())
    return text


def table(curves: Sequence[Curve]) -> str:
    """Markdown: each run's gain at its last look and at its best, with intervals."""
    heads = ("arm", "seed", "updates", "forwards", "gain at the end [95 %]", "TA", "MQ", "VQ", "best gain", "at update")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for curve in curves:
        last, best = curve.looks[-1], curve.best
        means = " | ".join(
            f"{last['means'].get(d, float('nan')) - curve.looks[0]['means'].get(d, float('nan')):+.3f}"
            for d in ("ta", "mq", "vq")
        )
        rows.append(
            f"| {curve.arm} | {curve.seed} | {last['step']} | {last['forwards']:,} | {_told(curve.gain_at(last))} "
            f"| {means} | {_told(curve.gain)} | {best['step']} |"
        )
    count = len(curves[0].looks[0]["totals"])
    rows.append(
        f"\nTotals are sums of TA, MQ and VQ of the validating judge in deviations of the first look's films, {count} "
        "prompts, one seed each, by the serving sampler. A forward is one row through the transformer; one with "
        "gradients counts 3."
    )
    return "\n".join(rows) + "\n"


def costs(curves: Sequence[Curve]) -> str:
    """Markdown: of each arm, over its seeds, the forwards to an equal score against those of flash or the first arm."""
    arms: dict[str, list[Curve]] = {}
    for curve in curves:
        arms.setdefault(curve.arm, []).append(curve)
    first = "flash" if "flash" in arms else next(iter(arms))
    rows = [f"| arm | forwards to an equal score, over those of {first} [95 %] | both rose in |", "|---|---|---|"]
    for arm in [arm for arm in arms if arm != first]:
        found = cost_ratio([c.rise for c in arms[arm]], [c.rise for c in arms[first]])
        ratio = f"{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]" if found.rose else "neither rose"
        rows.append(f"| {arm} | {ratio} | {found.rose:.0%} |")
    rows.append(
        "\nEqual is the best score that both arms reach in a resample of prompts and seeds; where one of them never "
        "rises above its start there is no ratio, and the last column counts the resamples in which both did."
    )
    return "\n".join(rows) + "\n"


def _told(gain: Interval) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


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
