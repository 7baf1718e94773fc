"""The number of threads is what was asked for, or what the process may really use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines import threads
from engines.errors import InvalidRequest
from engines.threads import choose_threads, physical_cores

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


def test_the_environment_decides_first() -> None:
    """RUSHES_THREADS goes before OMP_NUM_THREADS, and either before counting."""
    assert choose_threads(PASSIVE | {"RUSHES_THREADS": "3", "OMP_NUM_THREADS": "5"}) == 3
    assert choose_threads(PASSIVE | {"OMP_NUM_THREADS": "5"}) == 5


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "99999", "²"])
def test_a_wrong_number_is_refused(value: str) -> None:
    """What is no number of threads is told by name and value."""
    with pytest.raises(InvalidRequest, match=f"RUSHES_THREADS is '{value}'"):
        choose_threads({"RUSHES_THREADS": value})


def test_threads_that_would_spin_are_not_used() -> None:
    """Where waiting threads spin, one computes; where they sleep, all cores do."""
    assert choose_threads({}) == 1
    assert choose_threads({"OMP_WAIT_POLICY": "ACTIVE"}) == 1
    assert choose_threads({"OMP_WAIT_POLICY": "passive"}) == min(physical_cores(), threads.quota())


def test_affinity_and_siblings_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two hyperthreads of one core are one; a core the process may not run on is none; no topology means CPUs."""
    for cpu, siblings in enumerate(("0-1", "0-1", "2-3", "2-3", "4-5", "4-5")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(threads, "CPUS", tmp_path)
    assert physical_cores() == 2
    monkeypatch.setattr(threads, "CPUS", tmp_path / "gone")
    assert physical_cores() == 3


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", 1024), ("250000 100000", 2), ("50000 100000", 1), ("?", 1024)]
)
def test_a_container_quota_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, cores: int) -> None:
    """A quota of two and a half cores is two threads, and no less than one."""
    (tmp_path / "cpu.max").write_text(content + "\n")
    monkeypatch.setattr(threads, "CGROUP_QUOTA", tmp_path / "cpu.max")
    assert threads.quota() == cores


def test_importing_engines_makes_threads_sleep() -> None:
    """Whoever imports engines before torch gets threads that sleep, unless the environment said otherwise."""
    program = "import os, engines; print(os.environ['OMP_WAIT_POLICY'])"
    bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for environ, told in ((bare, "PASSIVE"), (bare | {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, cwd=Path.cwd()
        )
        assert done.stdout.strip() == told
