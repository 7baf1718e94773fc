"""What a chaos run tells when it held, and when it did not."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from server.bench.auditor import Audit
from server.bench.chaos_blows import Blow, Effect, Kind
from server.bench.chaos_drains import Drains
from server.bench.chaos_plan import ChaosPlan
from server.bench.chaos_real import RealKills
from server.bench.chaos_report import Findings
from server.bench.chaos_run import Inflicted

AUDIT = Audit(
    accepted=40,
    lost={},
    duplicated={},
    states={"succeeded": 37, "cancelled": 2, "failed": 1},
    errors={"worker_crashed_twice": 1},
    refused=frozenset({("job-3", 1), ("job-9", 1)}),
    turned_away=frozenset(),
    leftovers=["job-1/1.part"],
)
EFFECTS = [
    (Blow(kind=Kind.CHILD, job_id="job-1", attempt=1, worker_id="w", at=1.0), Effect(hit=True, recovery_s=0.25)),
    (Blow(kind=Kind.HOST, job_id="job-2", attempt=1, worker_id="w", at=1.0), Effect(hit=True, recovery_s=2.5)),
    (Blow(kind=Kind.HOST, job_id="job-5", attempt=1, worker_id="w", at=1.0), Effect(hit=True)),
    (Blow(kind=Kind.ZOMBIE, job_id="job-3", attempt=1, worker_id="w", at=1.0), Effect(hit=True, recovery_s=2.1)),
    (Blow(kind=Kind.ZOMBIE, job_id="job-4", attempt=1, worker_id="w", at=1.0), Effect(hit=True, recovery_s=2.1)),
]
DRAINS = Drains(once_s=[0.9, 1.2], twice_s=[0.4], penalised=[], audit=AUDIT)
SOUND = Findings(
    plan=ChaosPlan(jobs=40, kills=3, zombies=2, redis_kills=1, real_kills=2),
    inflicted=Inflicted(effects=EFFECTS, missed_kills=1, redis_kills=1),
    audit=AUDIT,
    unswept=[],
    control=replace(AUDIT, duplicated={"scripted-1": "attempts 1, 2 were each told that their outcome counts"}),
    drains=DRAINS,
    real=RealKills(kills=2, differing=[]),
    seconds=12.34,
    machine={"queue_server": {"name": "valkey", "version": "9"}, "cores": 2, "load": [0.5, 1.5]},
)


def shown(findings: Findings) -> str:
    """The table and the verdict."""
    console = Console(file=io.StringIO(), width=120)
    findings.show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_figures() -> None:
    """Kills that came too late count as kills, not as hits; a zombie is refused when its own outcome was."""
    told = json.loads(json.dumps(SOUND.document()))
    assert (told["kills"], told["kills_of_holders"], told["kills_of_children"], told["kills_of_hosts"]) == (4, 3, 1, 2)
    assert (told["zombies"], told["zombies_refused"], told["refused"], told["redis_kills"]) == (2, 1, 2, 1)
    assert (told["succeeded"], told["cancelled"], told["failed"]) == (37, 2, {"worker_crashed_twice": 1})
    assert told["recovery_child_s"] == {"p50": 0.25, "p99": 0.25, "max": 0.25, "n": 1}
    assert told["recovery_host_s"] == {"p50": 2.5, "p99": 2.5, "max": 2.5, "n": 1}
    assert (told["lost"], told["duplicated"], told["control_duplicated"], told["faults"]) == (0, 0, 1, [])
    assert (told["leftovers"], told["leftovers_after_sweep"]) == (1, 0)
    assert told["real"] == {"kills": 2, "differing": 0}


def test_a_run_that_held_says_so() -> None:
    """The last line is a plain verdict."""
    assert shown(SOUND).splitlines()[-1] == "Nothing was lost and nothing counted twice, in 12 s (seed 0)."


@pytest.mark.parametrize(
    ("findings", "fault"),
    [
        (replace(SOUND, audit=replace(AUDIT, lost={"job-7": "gone"})), "lost: job-7: gone"),
        (replace(SOUND, audit=replace(AUDIT, duplicated={"job-7": "twice"})), "duplicated: job-7: twice"),
        (replace(SOUND, control=AUDIT), "the control found no duplicate"),
        (replace(SOUND, real=RealKills(kills=2, differing=["killed-1"])), "another film after a kill"),
        (replace(SOUND, drains=replace(DRAINS, penalised=["job-7"])), "penalised by a drain: job-7"),
    ],
)
def test_a_run_that_failed_says_why(findings: Findings, fault: str) -> None:
    """Each kind of fault is among the faults, and told after the table."""
    assert [found.startswith(fault) for found in findings.faults] == [True]
    assert f"FAILED:\n{fault}" in shown(findings)


def test_many_faults_are_not_all_told() -> None:
    """The first few, and how many more there are."""
    findings = replace(SOUND, audit=replace(AUDIT, lost={f"job-{number}": "gone" for number in range(8)}))
    assert shown(findings).splitlines()[-1] == "and 3 more"
