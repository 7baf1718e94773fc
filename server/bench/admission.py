"""The admission bench: its plan, its parts one after another, and what is shown of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from server.bench.admission_fairness import measure_fairness
from server.bench.admission_flood import measure_flood
from server.bench.admission_leak import measure_leak
from server.bench.admission_rate import measure_rate
from server.bench.admission_streams import measure_streams
from server.bench.chaos_plan import BenchError

PARTS = ("rate", "flood", "fairness", "streams", "leak")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPlan:
    """How much of everything; `parts` empty means all of PARTS."""

    gateways: int
    connections: int
    seconds: float
    flood_seconds: float
    flood_times: float
    streams: int
    leak_jobs: int
    leak_engine: str
    seed: int
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = {
            "gateways": (1, 64),
            "connections": (1, 1000),
            "seconds": (1, 3600),
            "flood_seconds": (1, 3600),
            "flood_times": (1, 100),
            "streams": (1, 1000),
            "leak_jobs": (100, 1_000_000),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise BenchError(f"--{name.replace('_', '-')} is {value:g}; use {least} to {most}")
        for part in self.parts:
            if part not in PARTS:
                raise BenchError(f"--only names {part!r}; the parts are {', '.join(PARTS)}")
        if self.leak_engine != "real" and not self.leak_engine.startswith("sleeping"):
            raise BenchError(f"--leak-engine is {self.leak_engine!r}; use real or sleeping:STEP_SECONDS")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionFindings:
    """What each part measured, and on what machine."""

    plan: AdmissionPlan
    cores: int
    load_before: float
    parts: dict[str, dict[str, Any]]

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"cores": self.cores, "load_before": self.load_before, "plan": asdict(self.plan), **self.parts}

    def show(self, console: Console) -> None:
        """One row a figure."""
        table = Table(title=f"{self.cores} cores, load {self.load_before:.1f} before the start")
        for heading in ("part", "figure", "value"):
            table.add_column(heading, overflow="fold")
        for part, figures in self.parts.items():
            for name, value in _flat(figures):
                table.add_row(part, name, str(value))
        console.print(table)


async def run_admission(plan: AdmissionPlan, tell: Callable[[str], None]) -> AdmissionFindings:
    """Run the parts in order, each with processes and folders of its own; `tell` is given a line at each."""
    load = os.getloadavg()[0]
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="rushes-bench-") as root:
        parts: dict[str, Callable[[Path], Awaitable[dict[str, Any]]]] = {
            "rate": lambda at: measure_rate(
                at, connections=plan.connections, count=plan.gateways, seconds=plan.seconds
            ),
            "flood": lambda at: measure_flood(
                at, count=plan.gateways, seconds=plan.flood_seconds, times=plan.flood_times
            ),
            "fairness": measure_fairness,
            "streams": lambda at: measure_streams(at, count=plan.gateways, streams=plan.streams, seed=plan.seed),
            "leak": lambda at: measure_leak(at, jobs=plan.leak_jobs, engine=plan.leak_engine),
        }
        for name in plan.parts or PARTS:
            tell(f"{name}: {_FIRST_LINES[name]}")
            measured[name] = await parts[name](Path(root) / name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return AdmissionFindings(plan=plan, cores=cores, load_before=load, parts=measured)


_FIRST_LINES = {
    "rate": "requests a second, and how soon they are answered",
    "flood": "more requests than the workers can serve",
    "fairness": "a quiet tenant beside one that floods",
    "streams": "many followers of jobs, each of which loses the line once",
    "leak": "one worker through many small films",
}


def _flat(figures: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        inner = isinstance(value, dict)
        rows += _flat(value, f"{before}{name}.") if inner else [(f"{before}{name}", value)]
    return rows
