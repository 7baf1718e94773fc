"""Figures as a table for people: medians, with the least and the most of n."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

Runs = Sequence[Mapping[str, Any]]
_TITLES = {
    "overhead": "server's own share of a film",
    "burst": "32 films at once",
    "cancel": "three of four deleted, steps of 10 ms",
    "cancel_slow": "three of four deleted, steps of 0.2 s",
    "engine_kill": "engine process killed",
    "api_restart": "server restarted",
    "api_kill": "API process killed",
    "surplus": "32 films, 8 may wait",
    "goodput": "twice the capacity, deadlines",
}


def table(figures: Mapping[str, Mapping[str, Runs]], conditions: Mapping[str, Any]) -> str:
    """A Markdown table, a row for each thing done, a column for each server."""
    servers = sorted({name for row in figures.values() for name in row})
    lines = [f"| | {' | '.join(servers)} |", f"|{'---|' * (len(servers) + 1)}"]
    for row, by_server in figures.items():
        cells = [_CELLS[row](by_server[name]) if name in by_server else "" for name in servers]
        lines.append(f"| {_TITLES[row]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ", ".join(f"{name} {value}" for name, value in conditions.items()), ""])


def _overhead(runs: Runs) -> str:
    ways = [way for way in ("pushed", "polled") if f"{way}_s" in runs[0]]
    shares = [f"{way} +{_quartiles([run[f'{way}_s'] - run['bare_s'] for run in runs])}" for way in ways]
    return "; ".join([f"bare {_ms(run['bare_s'] for run in runs)}", *shares])


def _burst(runs: Runs) -> str:
    slowest = _ms(run["answer_s"][-1] for run in runs)
    return (
        f"{_sum(runs, 'accepted')} accepted, {_sum(runs, 'done')} delivered; "
        f"answer p50 {_ms(median(run['answer_s']) for run in runs)}, slowest {slowest}; "
        f"film p50 {_s(median(run['film_s']) for run in runs)}, last {_s(run['film_s'][-1] for run in runs)}"
    )


def _cancel(runs: Runs) -> str:
    stopped = [run["stopped_s"] for run in runs if run["stopped_s"] is not None]
    return (
        f"alone {_s(run['alone_s'] for run in runs)}, the fourth after {_s(run['fourth_s'] for run in runs)}; "
        f"the running film held the engine for another {_ms(stopped)}; "
        f"{_sum(runs, 'films_made')} of {3 * len(runs)} deleted films were made"
    )


def _engine_kill(runs: Runs) -> str:
    recovered = [run["recovered_s"] for run in runs if run["recovered_s"] is not None]
    back = (
        f"next film after {_s(recovered)}" if recovered else f"restart by hand, {_s(run['restart_s'] for run in runs)}"
    )
    return f"{_fates(runs)}; {back}; POST meanwhile: {sorted({run['post_status'] for run in runs})}"


def _api_restart(runs: Runs) -> str:
    return f"{_fates(runs)}; stop {_s(run['stop_s'] for run in runs)}, start {_s(run['start_s'] for run in runs)}"


def _api_kill(runs: Runs) -> str:
    return f"{_fates(runs)}; answers again after {_s(run['away_s'] for run in runs)}"


def _surplus(runs: Runs) -> str:
    text = f"{_sum(runs, 'accepted')} accepted, {_sum(runs, 'refused')} refused {sorted(_all(runs, 'statuses'))}"
    text += f"; answer slowest {_ms(run['answer_s'][-1] for run in runs)}"
    truth = [probe for run in runs for probe in run["truth"] if probe["said_s"] is not None]
    for steps in sorted({probe["steps"] for probe in truth}):
        probes = [probe for probe in truth if probe["steps"] == steps]
        said, waited = _s(probe["said_s"] for probe in probes), _s(probe["waited_s"] for probe in probes)
        text += f"; {steps} steps: Retry-After {said}, room after {waited}"
    return text + f"; {_sum(runs, 'done')} of {_sum(runs, 'accepted_in_all')} accepted were delivered"


def _goodput(runs: Runs) -> str:
    return "; ".join(
        f"{run['good']} of {run['offered']} in time ({run['share_of_capacity']:.0%} of capacity), "
        f"{run['late']} accepted but late, {run['never_accepted']} refused for good; a film {run['service_s']:.2f} s, "
        f"the first one after the storm {run['next_film_s']:.1f} s"
        for run in runs
    )


_CELLS: dict[str, Callable[[Runs], str]] = {
    "overhead": _overhead,
    "burst": _burst,
    "cancel": _cancel,
    "cancel_slow": _cancel,
    "engine_kill": _engine_kill,
    "api_restart": _api_restart,
    "api_kill": _api_kill,
    "surplus": _surplus,
    "goodput": _goodput,
}


def _fates(runs: Runs) -> str:
    kinds = ("delivered", "failed", "open", "unknown")
    told = [f"{_sum(runs, kind)} {kind}" for kind in kinds if _sum(runs, kind)]
    return f"of {_sum(runs, 'accepted')}: {', '.join(told)}"


def _sum(runs: Runs, name: str) -> int:
    return sum(run[name] for run in runs)


def _all(runs: Runs, name: str) -> set[Any]:
    return {value for run in runs for value in run[name]}


def _ms(seconds: Iterable[float]) -> str:
    return _spread([1000 * value for value in seconds], "ms", 0)


def _s(seconds: Iterable[float]) -> str:
    return _spread(list(seconds), "s", 2)


def _quartiles(seconds: Sequence[float]) -> str:
    if len(seconds) < 4:
        return _ms(seconds)
    lower, middle, upper = (f"{1000 * value:.0f}" for value in quantiles(seconds, n=4))
    return f"{middle} ms (quartiles {lower} to {upper}, n {len(seconds)})"


def _spread(values: Sequence[float], unit: str, digits: int) -> str:
    if not values:
        return "unknown"
    if len(values) == 1:
        return f"{values[0]:.{digits}f} {unit}"
    least, most = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{median(values):.{digits}f} {unit} ({least} to {most}, n {len(values)})"
