"""The command `rushes bench`: what the server promises, measured on the machine at hand."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import entry_points
from typing import Annotated

import typer
from rich.console import Console

from engines.command_group import command_group
from server.logs import configure_logging

GROUP = "rushes.bench"
"""Entry points of commands that other floors bring; their modules load torch when they are called, not before."""


@command_group
def bench() -> None:
    """Measure what the server promises and how the operators fare: losses under fire, admission, kernels."""


@bench.command()
def chaos(
    *,
    jobs: Annotated[int, typer.Option(help="Films to submit.")] = 100,
    kills: Annotated[int, typer.Option(help="kill -9 of workers that hold a lease; every other takes the host.")] = 15,
    zombies: Annotated[int, typer.Option(help="Workers to freeze until their lease is lost, then let go on.")] = 3,
    redis_kills: Annotated[int, typer.Option(help="kill -9 of the queue server.")] = 1,
    cancels: Annotated[float, typer.Option(help="Share of the films that their clients cancel.")] = 0.1,
    workers: Annotated[int, typer.Option(help="Workers at work at a time.")] = 5,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn by chance.")] = 0,
    lease: Annotated[float, typer.Option(help="Seconds that a lease lasts; a server's own last 6.")] = 2.0,
    drains: Annotated[int, typer.Option(help="SIGTERM to workers that hold a lease, in a run of its own.")] = 0,
    real_kills: Annotated[int, typer.Option(help="Kills while the built-in model makes films, too.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Kill and freeze workers and the queue, count what is lost or done twice.

    It uses a Valkey and folders of its own, and a second run without the queue's fence shows that the count would
    notice. Exit code 1 when anything was lost or duplicated, or the second run found nothing.
    """
    from server.bench.chaos import run_chaos  # noqa: PLC0415  as late as the options are known to be good
    from server.bench.chaos_plan import ChaosPlan  # noqa: PLC0415

    plan = ChaosPlan(
        jobs=jobs,
        kills=kills,
        zombies=zombies,
        redis_kills=redis_kills,
        cancels=cancels,
        workers=workers,
        seed=seed,
        lease_s=lease,
        real_kills=real_kills,
        drains=drains,
    )
    # That the queue's server ends and starts again is our own doing.
    configure_logging("error", "text")
    findings = asyncio.run(run_chaos(plan, lambda line: typer.echo(line, err=True)))
    if as_json:
        typer.echo(json.dumps(findings.document(), indent=2))
    else:
        findings.show(Console())
    if findings.faults:
        raise typer.Exit(1)


@bench.command()
def admission(
    *,
    gateways: Annotated[int, typer.Option(help="Gateway processes on one port.")] = 2,
    connections: Annotated[int, typer.Option(help="Clients that ask as soon as they are answered.")] = 32,
    seconds: Annotated[float, typer.Option(help="Seconds for each rate.")] = 10.0,
    flood_seconds: Annotated[float, typer.Option(help="Seconds of the flood.")] = 20.0,
    flood_times: Annotated[float, typer.Option(help="How many times what the workers can serve.")] = 4.0,
    streams: Annotated[int, typer.Option(help="Event streams open at once.")] = 200,
    leak_jobs: Annotated[int, typer.Option(help="Small films that one worker makes; 2000 tell of a leak.")] = 200,
    leak_engine: Annotated[str, typer.Option(help="real, or sleeping:STEP_SECONDS.")] = "real",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn by chance.")] = 0,
    only: Annotated[str, typer.Option(help="Comma separated parts; all: rate,flood,fairness,streams,leak.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what the gateways take and refuse, how fairly and how soon, and what grows.

    Load generator, queue server, gateways and workers share this machine; its load before the start is told.
    """
    from server.bench.admission import AdmissionPlan, run_admission  # noqa: PLC0415

    plan = AdmissionPlan(
        gateways=gateways,
        connections=connections,
        seconds=seconds,
        flood_seconds=flood_seconds,
        flood_times=flood_times,
        streams=streams,
        leak_jobs=leak_jobs,
        leak_engine=leak_engine,
        seed=seed,
        parts=tuple(part.strip() for part in only.split(",") if part.strip()),
    )
    configure_logging("error", "text")
    findings = asyncio.run(run_admission(plan, lambda line: typer.echo(line, err=True)))
    if as_json:
        typer.echo(json.dumps(findings.document(), indent=2))
    else:
        findings.show(Console())


for _found in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
    bench.command(_found.name)(_found.load())
