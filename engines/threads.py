"""How many threads a CPU engine computes with: chosen once, on purpose, from what this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import torch

from engines.errors import InvalidRequest

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def choose_threads(environ: dict[str, str] | None = None) -> int:
    """RUSHES_THREADS, else OMP_NUM_THREADS, else physical cores within this process's affinity and container quota."""
    environ = dict(os.environ) if environ is None else environ
    for name in ("RUSHES_THREADS", "OMP_NUM_THREADS"):
        if text := environ.get(name):
            if not text.isdecimal() or not 1 <= int(text) <= 1024:
                raise InvalidRequest(name, f"{name} is {text!r}; it must be a whole number from 1 to 1024")
            return int(text)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable, _quota()))


def apply_threads() -> int:
    """Tell torch, and return the number."""
    threads = choose_threads()
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


def _quota() -> int:
    """Cores that a container's CPU quota allows; more threads than that are stopped in the middle of every operator."""
    try:
        quota, period = CGROUP_QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 1024
    return 1024 if quota == "max" else max(1, math.floor(int(quota) / int(period)))
