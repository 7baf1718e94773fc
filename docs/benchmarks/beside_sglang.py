#!/usr/bin/env python3
"""Our server beside SGLang-Diffusion's: the same random Wan, the same requests, the same blows, one table.

    python docs/benchmarks/beside_sglang.py --work DIR [--only ours|theirs] [--rows ROW ...] [--json]

DIR gets a virtual environment of theirs (about 7 GB, made once), both models, both servers' data and logs.
beside_sglang.md tells what is asked in each row. Run it with the Python that rushes is installed for; it is for Linux
and Python 3.11.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from beside import overload, rows
from beside.bare import BareEngine
from beside.installing import VERSION, install
from beside.report import table
from beside.servers import ROOT, Limits, Rushes, Server, Sglang, pin_to_engines_core, sglang_environment, sglang_python

ROWS = ("overhead", "burst", "cancel", "cancel_slow", "engine_kill", "api_restart", "api_kill", "surplus", "goodput")
_PORTS = {"rushes": 31100, "sglang": 31200}
_GOODPUT_S = 40.0

Figures = dict[str, dict[str, Any]]


class Benchmark:
    """The servers that take part, the folder they work in, and what was measured: by row, then by server."""

    def __init__(self, servers: Sequence[Server], *, work: Path, repeats: int) -> None:
        self.figures: Figures = {}
        self._servers = servers
        self._tiny, self._slow = work / "models" / "tiny", work / "models" / "slow"
        self._work = work
        self._kept = work / "figures.json"
        self._repeats = repeats

    async def run(self, chosen: Sequence[str]) -> None:
        """Every chosen row; the servers take turns, so that both see the same load from elsewhere."""
        try:
            for row in chosen:
                _tell(f"row {row}")
                await getattr(self, f"_{row}")()
                # Kept row by row, for a later row may fail after minutes.
                self._kept.write_text(json.dumps(self.figures, indent=1), encoding="ascii")
        finally:
            for server in self._servers:
                await server.close()

    async def _overhead(self) -> None:
        async with self._serving(self._tiny), self._bare_engines() as engines:
            for seed in range(1 + 10 * self._repeats):
                for server in self._servers:
                    measured = await rows.overhead(server, engines[server.name], seed=seed)
                    # The first film of a server warms it.
                    if seed:
                        self._note("overhead", server, measured)

    async def _burst(self) -> None:
        async with self._serving(self._tiny):
            for n in range(self._repeats):
                for server in self._servers:
                    self._note("burst", server, await rows.burst(server, seed=100 * n))

    async def _cancel(self) -> None:
        async with self._serving(self._tiny):
            for n in range(self._repeats):
                for server in self._servers:
                    self._note("cancel", server, await rows.cancel(server, steps=2 * rows.LONG, seed=100 * n))

    async def _cancel_slow(self) -> None:
        async with self._serving(self._slow):
            for n in range(self._repeats):
                for server in self._servers:
                    self._note("cancel_slow", server, await rows.cancel(server, steps=rows.SLOW, seed=100 * n))

    async def _engine_kill(self) -> None:
        await self._blow("engine_kill", rows.engine_kill)

    async def _api_restart(self) -> None:
        await self._blow("api_restart", rows.api_restart)

    async def _api_kill(self) -> None:
        await self._blow("api_kill", rows.api_kill)

    async def _blow(self, row: str, strike: Any) -> None:
        async with self._serving(self._tiny):
            for n in range(self._repeats):
                for server in self._servers:
                    self._note(row, server, await strike(server, self._tiny, seed=100 * n))

    async def _surplus(self) -> None:
        for server in self._servers:
            service_s = await self._service_time(server)
            await server.start(self._tiny, Limits(waiting_s=overload.WAITING * service_s))
            for n in range(self._repeats):
                self._note("surplus", server, await overload.surplus(server, seed=100 * n))
            await server.stop()

    async def _goodput(self) -> None:
        for server in self._servers:
            service_s = await self._service_time(server)
            # What waits in front of a film, the film itself and the rest of the one on its way fit into the deadline.
            waiting_s, deadline_s = (overload.DEADLINE - 2) * service_s, overload.DEADLINE * service_s
            await server.start(self._tiny, Limits(waiting_s=waiting_s, deadline_s=deadline_s))
            self._note("goodput", server, await overload.goodput(server, seconds=_GOODPUT_S, seed=1))
            await server.stop()

    async def _service_time(self, server: Server) -> float:
        await server.start(self._tiny)
        service_s = await overload.service_time(server)
        await server.stop()
        return service_s

    @asynccontextmanager
    async def _serving(self, model: Path) -> AsyncIterator[None]:
        for server in self._servers:
            _tell(f"{server.name} is ready after {await server.start(model):.1f} s")
        yield
        for server in self._servers:
            await server.stop()

    @asynccontextmanager
    async def _bare_engines(self) -> AsyncIterator[dict[str, BareEngine]]:
        engines = {}
        for server in self._servers:
            ours = isinstance(server, Rushes)
            engines[server.name] = await BareEngine.start(
                f"bare_{server.name}.py",
                Path(sys.executable) if ours else sglang_python(self._work),
                self._tiny,
                environment={} if ours else sglang_environment(self._work),
                log=self._work / f"bare-{server.name}.log",
            )
            pin_to_engines_core(engines[server.name].pid)
        yield engines
        for engine in engines.values():
            await engine.stop()

    def _note(self, row: str, server: Server, measured: dict[str, Any]) -> None:
        self.figures.setdefault(row, {}).setdefault(server.name, []).append(measured)


def main() -> None:
    """Parse, set up, measure, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that this makes")
    parser.add_argument("--only", choices=("ours", "theirs"), help="one server alone")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument(
        "--repeats", type=int, default=3, help="how often each row is measured (overhead: 10 times that)"
    )
    parser.add_argument("--json", action="store_true", help="print every single figure instead of the table")
    asked = parser.parse_args()
    work = asked.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    servers: list[Server] = []
    if asked.only != "theirs":
        servers.append(Rushes(work=work, port=_PORTS["rushes"]))
    if asked.only != "ours":
        install(work)
        servers.append(Sglang(work=work, port=_PORTS["sglang"]))
    _make_models(work / "models")
    benchmark = Benchmark(servers, work=work, repeats=asked.repeats)
    before = os.getloadavg()
    asyncio.run(benchmark.run(asked.rows))
    conditions = {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": before,
        "load_after": os.getloadavg(),
        "rushes": _commit(),
        "sglang": VERSION,
    }
    if asked.json:
        sys.stdout.write(json.dumps({"conditions": conditions, "figures": benchmark.figures}, indent=1) + "\n")
    else:
        sys.stdout.write(table(benchmark.figures, conditions))


def _make_models(folder: Path) -> None:
    if not (folder / "slow" / "model_index.json").is_file():
        script = [sys.executable, str(Path(__file__).parent / "beside" / "models.py"), str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(script, check=True, env=environment, stdout=sys.stderr)  # noqa: S603 - our own script


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    told = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 - our own repository
    return told.stdout.strip() or "not a git checkout"


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
