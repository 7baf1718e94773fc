"""The chaos bench through its command: it hits what it aims at, loses nothing, and would notice if it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.bench.auditor import audit
from server.bench.chaos_control import scripted_zombie
from server.bench.chaos_site import SiteKind, opened
from tests.server.live import ROOT


def start_bench(folder: Path, options: str) -> subprocess.Popen[str]:
    """`rushes bench chaos`, its temporary files below the folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "server.cli", "bench", "chaos", *options.split()],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def found(folder: Path, options: str) -> dict[str, Any]:
    """The JSON of a run that must have held, and have left nothing behind."""
    process = start_bench(folder, f"{options} --json")
    told, progress = process.communicate()
    assert process.returncode == 0, told + progress
    assert list(folder.iterdir()) == []
    return json.loads(told)


def test_a_small_run_loses_nothing(tmp_path: Path) -> None:
    """Each kill and each zombie asked for hit a lease, nothing was lost or doubled, and the control was."""
    told = found(tmp_path, "--jobs 40 --kills 6 --zombies 2 --redis-kills 1 --drains 4 --seed 5")
    assert (told["jobs"], told["lost"], told["duplicated"], told["faults"]) == (40, 0, 0, [])
    assert (told["kills_of_children"], told["kills_of_hosts"], told["zombies"], told["redis_kills"]) == (3, 3, 2, 1)
    assert told["succeeded"] + told["cancelled"] + sum(told["failed"].values()) == 40
    assert told["refused"] >= told["zombies_refused"]
    assert 0 < told["recovery_child_s"]["n"] <= 3
    assert 0 < told["recovery_host_s"]["n"] <= 3
    assert told["leftovers_after_sweep"] == 0
    assert told["control_duplicated"] >= 1
    drains = told["drains"]
    assert (drains["drains"], drains["penalised"], drains["lost"], drains["duplicated"]) == (4, 0, 0, 0)
    assert (drains["exit_after_one_s"]["n"], drains["exit_after_two_s"]["n"]) == (2, 2)


@pytest.mark.anyio
async def test_the_fence_refuses_the_scripted_zombie(tmp_path: Path) -> None:
    """The very script that doubles an outcome without the fence doubles none with it: the late one is refused."""
    async with opened(tmp_path / "site", SiteKind(module="server.bench.sleeping_worker"), lease_s=1.5) as site:
        await scripted_zombie(site)
        await site.fleet.drain()
        audited = await audit(site.client, site.traces)
    assert (audited.lost, audited.duplicated, audited.leftovers) == ({}, {}, [])
    assert {attempt for _, attempt in audited.refused} == {1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--jobs 0", "--jobs is 0"),
        ("--jobs 10 --kills 9 --zombies 2", "--jobs is 10"),
        ("--redis-kills -1", "--redis-kills is -1"),
        ("--cancels 0.9", "--cancels is 0.9"),
        ("--workers 0", "--workers is 0"),
        ("--lease 0.1", "--lease is 0.1"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(tmp_path: Path, options: str, told: str) -> None:
    """Exit code 2, and one line that names the option, its value and what would do."""
    process = start_bench(tmp_path, options)
    _, error = process.communicate()
    assert process.returncode == 2
    assert error.startswith("rushes: ")
    assert told in error
    assert "use " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle ends workers, frozen ones too, children and queue server, and removes every file."""
    process = start_bench(tmp_path, "--jobs 200 --kills 20 --zombies 20")
    assert process.stderr is not None
    assert any(not line.startswith("0 of") for line in process.stderr)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 5
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_jobs_under_fire(tmp_path: Path) -> None:
    """A thousand jobs, 150 kills of lease holders, 30 zombies, 5 kills of the queue, and 20 with the real model."""
    told = found(tmp_path, "--jobs 1000 --kills 150 --zombies 30 --redis-kills 5 --drains 100 --real-kills 20 --seed 6")
    assert (told["jobs"], told["lost"], told["duplicated"]) == (1000, 0, 0)
    assert (told["kills_of_holders"], told["zombies"], told["redis_kills"]) == (150, 30, 5)
    assert told["zombies_refused"] >= 10
    assert told["control_duplicated"] >= 1
    assert told["real"] == {"kills": 20, "differing": 0}
