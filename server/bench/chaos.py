"""The chaos bench from beginning to end: the run, its audit, the control, and the real model's films."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from server.artifacts.sweeper import sweep
from server.bench.auditor import Audit, audit
from server.bench.chaos_control import run_control
from server.bench.chaos_drains import run_drains
from server.bench.chaos_plan import BenchError, ChaosPlan
from server.bench.chaos_real import run_real_kills
from server.bench.chaos_report import Findings
from server.bench.chaos_run import ChaosRun, Inflicted, Tell
from server.bench.chaos_site import SiteKind, opened

_FENCED = SiteKind(module="server.bench.sleeping_worker")


async def run_chaos(plan: ChaosPlan, tell: Tell) -> Findings:
    """Carry out a plan in a temporary folder, which is left for the operator to look at only when something failed.

    BenchError when the plan cannot be carried out.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Who starts us with nohup means us to go on; else as Ctrl-C: asyncio cancels us, and all is put away in order.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, os.kill, os.getpid(), signal.SIGINT)
    folder = Path(tempfile.mkdtemp(prefix="rushes-bench-"))
    keep = False
    try:
        findings = await _carry_out(plan, folder, tell)
        keep = bool(findings.faults)
    except BenchError:
        keep = True
        raise
    finally:
        if keep:
            tell(f"logs, films and the queue's data are left in {folder}")
        else:
            shutil.rmtree(folder)
    return findings


async def _carry_out(plan: ChaosPlan, folder: Path, tell: Tell) -> Findings:
    rng = random.Random(plan.seed)
    load = os.getloadavg()[0]
    began = time.monotonic()
    inflicted, found, unswept, server = await _main_run(folder / "main", plan, rng, tell)
    seconds = time.monotonic() - began
    control = await run_control(folder / "control", plan.control(), rng=rng, tell=tell)
    drains = None
    if plan.drains:
        drains = await run_drains(folder / "drains", plan.drains, lease_s=plan.lease_s, rng=rng, tell=tell)
    real = None
    if plan.real_kills:
        real = await run_real_kills(folder / "real", plan.real_kills, rng=rng, tell=tell)
    return Findings(
        plan=plan,
        inflicted=inflicted,
        audit=found,
        unswept=unswept,
        control=control,
        drains=drains,
        real=real,
        seconds=seconds,
        machine={"queue_server": server, "cores": os.cpu_count(), "load": [load, os.getloadavg()[0]]},
    )


async def _main_run(
    folder: Path, plan: ChaosPlan, rng: random.Random, tell: Tell
) -> tuple[Inflicted, Audit, list[str], dict[str, Any]]:
    async with opened(folder, _FENCED, lease_s=plan.lease_s) as site:
        server = await site.server_facts()
        inflicted = await ChaosRun(site, plan, rng=rng, tell=tell).run()
        found = await audit(site.client, site.traces)
        # With everything at rest nothing needs the grace that protects films in the making.
        await sweep(site.artifacts, site.queue, grace_s=0.0)
        unswept = (await audit(site.client, site.traces)).leftovers
    return inflicted, found, unswept, server
