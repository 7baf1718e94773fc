"""How many threads a CPU engine computes with: chosen once, on purpose, from what this process may really use."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from engines.errors import InvalidRequest

CPUS = Path("/sys/devices/system/cpu")
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
MOST = 1024


def choose_threads(environ: Mapping[str, str] = os.environ) -> int:
    """RUSHES_THREADS, else OMP_NUM_THREADS, else physical cores within this process's affinity and container quota.

    One where threads spin while they wait (torch was loaded before `engines`): several would crawl on a busy host.
    """
    for name in ("RUSHES_THREADS", "OMP_NUM_THREADS"):
        if text := environ.get(name):
            if not text.isdecimal() or not 1 <= int(text) <= MOST:
                raise InvalidRequest(name, f"{name} is {text!r}; it must be a whole number from 1 to {MOST}")
            return int(text)
    if environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        return 1
    return max(1, min(physical_cores(), quota()))


def apply_threads() -> int:
    """Tell torch, and return the number."""
    threads = choose_threads()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


def physical_cores() -> int:
    """Cores, not hyperthreads, that this process may run on; two threads of one core only share its arithmetic."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    try:
        return len({(CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii") for cpu in allowed})
    except OSError:
        return len(allowed)


def quota() -> int:
    """Cores that a container's CPU quota allows; more threads than that are stopped in the middle of every operator."""
    try:
        allowed, period = CGROUP_QUOTA.read_text(encoding="ascii").split()
        return MOST if allowed == "max" else max(1, math.floor(int(allowed) / int(period)))
    except (OSError, ValueError):
        return MOST
