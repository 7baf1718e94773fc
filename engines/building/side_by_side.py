"""Two engines on the same films, in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from engines.building.accuracy import compared, probe_films
from engines.engine import load_engine
from engines.ratios import ratio_quartiles
from engines.recipes.diorama import PROBES

_ROUNDS = 3
_STAGES = ("encode", "denoise", "decode")


def compare_engines(a: str, b: str, tell: Callable[[str], object]) -> dict[str, Any]:
    """Films of `a` beside those of `b`: accuracy as of a build, and medians of the stages' seconds.

    Of the ratio, film by film, the median with its quartiles; `load` is the machine's, before and after.
    """
    engines = {"a": load_engine(a), "b": load_engine(b)}
    load = os.getloadavg()[0]
    films = {side: probe_films(engine, PROBES) for side, engine in engines.items()}  # which warms both up, too
    rounds: dict[str, dict[str, list[float]]] = {side: {stage: [] for stage in _STAGES} for side in engines}
    for number in range(_ROUNDS):
        tell(f"round {number + 1} of {_ROUNDS}")
        for side, engine in engines.items():
            for film in probe_films(engine, PROBES):
                for stage in _STAGES:
                    rounds[side][stage].append(film.result.seconds[stage])
    return {
        "a": a,
        "b": b,
        "accuracy": compared(films["a"], films["b"], []).to_json(),
        "seconds": {stage: _ratio(rounds["a"][stage], rounds["b"][stage]) for stage in _STAGES},
        "films": _ROUNDS * len(films["a"]),
        "load": [load, os.getloadavg()[0]],
    }


def _ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    return {"a": statistics.median(a), "b": statistics.median(b), **ratio_quartiles(a, b)}
