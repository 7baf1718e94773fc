"""Counts what was lost and what counted twice, from what is left behind: films, records, event streams and logs.

It knows nothing of what was done to the workers, and reads Redis by itself instead of through `JobQueue`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio as redis

_TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
# What a job may rightly fail of when its workers are killed time after time; the job itself is sound.
_SPENT = frozenset({"attempts_exhausted", "worker_crashed_twice"})
# What a supervisor logs of an outcome it brought to the queue, and of a lease that it lost.
_TOLD = re.compile(r" job (\S+) attempt (\d+): (?:succeeded|failed|cancelled)(, refused as stale)?")
_TURNED_AWAY = re.compile(r" job (\S+) attempt (\d+) is no longer ours")

Attempt = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What a run leaves behind; `receipts` holds the id of each job that the queue accepted, one a line."""

    pool: str
    receipts: Path
    artifacts: Path
    logs: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The findings.

    `lost` and `duplicated` say of each such job what is wrong; one that failed by no fault of its own is lost, too.
    `states` counts the accepted jobs by state, `errors` the failed ones by code. `refused` are the attempts whose
    outcome the queue refused, `turned_away` those that were told at a renewal that their lease was lost; `leftovers`
    are files that no record names.
    """

    accepted: int
    lost: dict[str, str]
    duplicated: dict[str, str]
    states: dict[str, int]
    errors: dict[str, int]
    refused: frozenset[Attempt]
    turned_away: frozenset[Attempt]
    leftovers: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    record: dict[str, str]
    ends: list[tuple[str, int]]  # each terminal event with the attempt that held the job then


async def audit(client: redis.Redis, traces: Traces) -> Audit:
    """Look at everything; the workers must have ended."""
    accepted = traces.receipts.read_text(encoding="utf-8").split()
    jobs = {job_id: await _read_job(client, "{q:" + traces.pool + "}", job_id) for job_id in accepted}
    counted, refused, turned_away = _read_logs(traces.logs)
    named = {job.record["artifact"] for job in jobs.values() if "artifact" in job.record}
    failed = [job.record.get("error_code", "") for job in jobs.values() if job.record.get("state") == "failed"]
    return Audit(
        accepted=len(jobs),
        lost={job_id: why for job_id, job in jobs.items() if (why := _loss(job, traces.artifacts))},
        duplicated={job_id: why for job_id, job in jobs.items() if (why := _duplicate(job, counted[job_id]))},
        states=dict(Counter(job.record.get("state", "gone") for job in jobs.values())),
        errors=dict(Counter(failed)),
        refused=refused,
        turned_away=turned_away,
        leftovers=sorted(set(files(traces.artifacts)) - named),
    )


def files(root: Path) -> Iterator[str]:
    """Every file below a folder, by its path from there."""
    for path in root.rglob("*"):
        if not path.is_dir():
            yield path.relative_to(root).as_posix()


async def _read_job(client: redis.Redis, prefix: str, job_id: str) -> _Job:
    record: Any = await client.hgetall(f"{prefix}:job:{job_id}")
    entries: Any = await client.xrange(f"{prefix}:events:{job_id}")
    ends = [
        (fields["type"], json.loads(fields["data"]).get("attempt", 0))
        for _, fields in entries
        if fields["type"] in _TERMINAL
    ]
    return _Job(record=record, ends=ends)


def _loss(job: _Job, artifacts: Path) -> str | None:
    """Why an accepted job counts as lost, if it does."""
    if not job.record:
        return "accepted, but the queue knows nothing of it"
    state = job.record["state"]
    if state not in _TERMINAL:
        return f"accepted, but {state} in the end"
    if not job.ends:
        return f"{state}, but its stream tells of no end"
    if state == "failed" and job.record.get("error_code") not in _SPENT:
        return f"failed with {job.record.get('error_code')}, though nothing was wrong with it"
    if state == "succeeded":
        film = artifacts / job.record.get("artifact", "no name")
        if not film.is_file() or film.stat().st_size == 0:
            return f"succeeded, but there is no film {film.name}"
    return None


def _duplicate(job: _Job, counted: set[int]) -> str | None:
    """Why more than one outcome of a job counted, if it did."""
    if len(job.ends) > 1:
        return f"{len(job.ends)} terminal events: {', '.join(kind for kind, _ in job.ends)}"
    if len(counted) > 1:
        return f"attempts {', '.join(map(str, sorted(counted)))} were each told that their outcome counts"
    if job.ends and "artifact" in job.record:
        made_by = int(job.record["artifact"].partition("/")[2].partition(".")[0])
        if made_by != job.ends[0][1]:
            return f"the film is attempt {made_by}'s, but attempt {job.ends[0][1]} held the job"
    return None


def _read_logs(folder: Path) -> tuple[dict[str, set[int]], frozenset[Attempt], frozenset[Attempt]]:
    """By job the attempts whose outcome counted; the attempts that were refused, and those turned away."""
    counted: dict[str, set[int]] = defaultdict(set)
    refused: set[Attempt] = set()
    turned_away: set[Attempt] = set()
    for log in folder.iterdir():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if told := _TOLD.search(line):
                if told[3]:
                    refused.add((told[1], int(told[2])))
                else:
                    counted[told[1]].add(int(told[2]))
            elif lost := _TURNED_AWAY.search(line):
                turned_away.add((lost[1], int(lost[2])))
    return counted, frozenset(refused), frozenset(turned_away)
