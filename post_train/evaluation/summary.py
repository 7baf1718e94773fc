"""The figures of a comparison as one JSON object: what `--json` prints, and what the report is written from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from post_train.evaluation.comparison import Comparison, Side, pairs, score_of, vbench_of
from post_train.evaluation.gsb import Gsb
from post_train.evaluation.prompts import Prompt, PromptKind
from post_train.evaluation.scoring import VBENCH, FilmScores
from post_train.evaluation.statistics import POWER, Interval, interval, needed_prompts
from post_train.rewards.base import Dimension

SCHEMA = 1
_EFFECTS = {"gsb": (0.05, 0.1, 0.2, 0.3), "ta": (0.01, 0.02, 0.05, 0.1)}


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def told(found: Interval | None) -> dict[str, float | None] | None:
    """An interval for JSON."""
    return found and {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high)}


def told_gsb(found: Gsb) -> dict[str, float | int]:
    """GSB for JSON, under the names that every report of it has."""
    return {
        "gsb": found.gsb,
        "gsb_low": found.low,
        "gsb_high": found.high,
        "good": found.good,
        "same": found.same,
        "bad": found.bad,
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """Everything but the single pairs; figures are about the headline prompts unless they name a kind."""
    headline = comparison.prompts.headline
    gsb = comparison.gsb(headline)
    return {
        "schema": SCHEMA,
        "n": len(headline),
        "seeds": comparison.seeds,
        **told_gsb(gsb),
        "by": "judge",
        "tie_threshold": comparison.threshold,
        "a": _side(comparison, comparison.a),
        "b": _side(comparison, comparison.b),
        "differences": _differences(comparison, headline),
        "attributes": _attributes(comparison, headline),
        "kinds": {k.value: _kind(comparison, k) for k in PromptKind if comparison.of_kind(k)},
        "needed_prompts": _needed(comparison, headline),
        "judge": {"role": comparison.judges.role, "digests": comparison.judges.digests},
        "scale": comparison.scale.model_dump(mode="json"),
        "prompts": comparison.prompts.name,
        "refused": [{"prompt": r.text, "why": r.why} for r in comparison.prompts.refused],
    }


def _side(comparison: Comparison, side: Side) -> dict[str, Any]:
    headline, seeds = comparison.prompts.headline, comparison.seeds
    mean: Callable[[Callable[[FilmScores], float]], float] = lambda read: side.mean(headline, seeds, read).mean  # noqa: E731
    return {
        "name": side.arm.name,
        "weights": side.arm.digest,
        **{d.value: mean(score_of(d)) for d in Dimension},
        **{name: mean(vbench_of(name)) for name in VBENCH},
        "diversity": side.diversity.mean,
        "prompt_sensitivity": told(comparison.sensitivity(side)),
        "nfe": mean(lambda f: f.nfe),
        "seconds": mean(lambda f: f.seconds),
        "intervals": {
            **{d.value: told(side.mean(headline, seeds, score_of(d))) for d in Dimension},
            **{name: told(side.mean(headline, seeds, vbench_of(name))) for name in VBENCH},
            "diversity": told(side.diversity),
        },
        "sampler": _sampler(side),
    }


def _sampler(side: Side) -> dict[str, Any]:
    d = side.arm.card.defaults
    return {
        "name": d.sampler,
        "steps": d.num_inference_steps,
        "guidance_scale": d.guidance_scale,
        "flow_shift": d.flow_shift,
        "width": d.width,
        "height": d.height,
        "num_frames": d.num_frames,
    }


def _differences(comparison: Comparison, prompts: Sequence[Prompt]) -> dict[str, Any]:
    reads: dict[str, Callable[[FilmScores], float]] = {
        **{d.value: score_of(d) for d in Dimension},
        "total": comparison.scale.total,
        **{name: vbench_of(name) for name in VBENCH},
    }
    found = {name: told(comparison.difference(prompts, read)) for name, read in reads.items()}
    return found | {"diversity": told(interval(comparison.a.distances - comparison.b.distances))}


def _attributes(comparison: Comparison, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What text alignment is made of, each part over the prompts that ask for it."""
    found: dict[str, Any] = {}
    for name in _part_names(comparison, prompts):
        having = [
            p
            for p in prompts
            if all(name in _parts(s.found[a]) for s in (comparison.a, comparison.b) for _, a in pairs(comparison, [p]))
        ]
        if having:
            read = _part_of(name)
            found[name] = {
                "n": len(having),
                "a": comparison.a.mean(having, comparison.seeds, read).mean,
                "b": comparison.b.mean(having, comparison.seeds, read).mean,
                "difference": told(comparison.difference(having, read)),
            }
    return found


def _parts(found: FilmScores) -> dict[str, float]:
    return found.scores[Dimension.TEXT_ALIGNMENT].parts


def _part_of(name: str) -> Callable[[FilmScores], float]:
    return lambda found: _parts(found)[name]


def _part_names(comparison: Comparison, prompts: Sequence[Prompt]) -> list[str]:
    asks = [ask for _, ask in pairs(comparison, prompts)]
    return list(dict.fromkeys(name for ask in asks for name in _parts(comparison.a.found[ask])))


def _kind(comparison: Comparison, kind: PromptKind) -> dict[str, Any]:
    prompts, seeds = comparison.of_kind(kind), comparison.seeds
    return {
        "n": len(prompts),
        **told_gsb(comparison.gsb(prompts)),
        "a": {d.value: comparison.a.mean(prompts, seeds, score_of(d)).mean for d in Dimension},
        "b": {d.value: comparison.b.mean(prompts, seeds, score_of(d)).mean for d in Dimension},
    }


def _needed(comparison: Comparison, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Prompts that an effect of a given size needs, by the spread of the differences seen here."""
    if len(prompts) < 2:
        return {}
    per_prompt = {
        "gsb": comparison.outcomes(prompts).mean(axis=1, dtype=np.float64),
        "ta": comparison.differences(prompts, score_of(Dimension.TEXT_ALIGNMENT)).mean(axis=1),
    }
    spreads = {name: float(v.std(ddof=1)) for name, v in per_prompt.items()}
    return {
        "power": POWER,
        **{
            name: {"spread": spread, "prompts": {str(e): needed_prompts(spread, e) for e in _EFFECTS[name]}}
            for name, spread in spreads.items()
            if spread > 0  # where all prompts agree they tell nothing of how far others may differ
        },
    }


def items(comparison: Comparison) -> list[dict[str, Any]]:
    """Every pair with its scores and outcome, for whoever wants to look closer."""
    prompts = comparison.prompts.prompts
    verdicts = comparison.outcomes(prompts).ravel().tolist()
    return [
        {
            "prompt": prompt.text,
            "kind": prompt.kind.value,
            "seed": ask.seed,
            "outcome": verdict,
            "a": _scores(comparison, comparison.a.found[ask]),
            "b": _scores(comparison, comparison.b.found[ask]),
        }
        for (prompt, ask), verdict in zip(pairs(comparison, prompts), verdicts, strict=True)
    ]


def _scores(comparison: Comparison, found: FilmScores) -> dict[str, float]:
    return {
        **{d.value: s.value for d, s in found.scores.items()},
        "total": comparison.scale.total(found),
        **{name: vbench_of(name)(found) for name in VBENCH},
    }
