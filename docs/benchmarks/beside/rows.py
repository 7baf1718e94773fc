"""What is done to a server and what it made of that: one function for a row, each a plain dictionary of figures.

Seconds are a client's, over loopback. `tiny` films of SHORT steps last about 0.2 s, of LONG steps about a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from beside.bare import BareEngine
from beside.processes import kill
from beside.servers import Rushes, Seen, Server

SHORT, LONG, SLOW = 4, 80, 12
_BURST = 32
_CROWD = 8  # films waiting and running when something is killed
_DONE_BEFORE = 2
_CLIENT_LOOKS_S = 0.5
_CLOSE_LOOK_S = 0.02
_RECOVERS_WITHIN_S = 30.0


async def overhead(server: Server, engine: BareEngine, *, seed: int) -> dict[str, float]:
    """The same film by the bare engine and by the idle server, one after the other."""
    figures = {"bare_s": await engine.seconds(steps=SHORT, seed=seed)}
    begun = time.perf_counter()
    await server.wait(await server.must_submit(steps=SHORT, seed=seed), every_s=_CLOSE_LOOK_S)
    figures["polled_s"] = time.perf_counter() - begun
    if isinstance(server, Rushes):
        begun = time.perf_counter()
        await _follow(server, await server.must_submit(steps=SHORT, seed=seed))
        figures["pushed_s"] = time.perf_counter() - begun
    return figures


async def burst(server: Server, *, seed: int) -> dict[str, Any]:
    """32 clients ask at the same moment, and each looks every half second for its film."""
    begun = time.perf_counter()
    answers = await asyncio.gather(*(server.submit(steps=SHORT, seed=seed + n) for n in range(_BURST)))
    accepted = [answer.job_id for answer in answers if answer.job_id is not None]
    latencies: list[float] = []

    async def client(job_id: str) -> Seen:
        seen = await server.wait(job_id, every_s=_CLIENT_LOOKS_S)
        latencies.append(time.perf_counter() - begun)
        return seen

    ends = Counter(await asyncio.gather(*(client(job_id) for job_id in accepted)))
    return {
        "accepted": len(accepted),
        "done": ends[Seen.DONE],
        "answer_s": sorted(answer.seconds for answer in answers),
        "film_s": sorted(latencies),
    }


async def cancel(server: Server, *, steps: int, seed: int) -> dict[str, Any]:
    """Four films; once the first is on its way, it and the next two are deleted. How long does the fourth wait?"""
    begun = time.perf_counter()
    await server.wait(await server.must_submit(steps=steps, seed=seed), every_s=_CLOSE_LOOK_S)
    alone = time.perf_counter() - begun
    jobs = [await server.must_submit(steps=steps, seed=seed + n) for n in range(4)]
    await asyncio.sleep(0.3 * alone)
    deleted_at, begun = time.time(), time.perf_counter()
    answers = await asyncio.gather(*(server.remove(job_id) for job_id in jobs[:3]))
    await server.wait(jobs[3], every_s=_CLOSE_LOOK_S)
    figures = {
        "alone_s": alone,
        "fourth_s": time.perf_counter() - begun,
        "answer_s": sorted(answers),
        # Whether films of which nobody wants to know any more were made all the same.
        "films_made": sum(any(server.state.rglob(f"*{job_id}*.mp4")) for job_id in jobs[:3]),
        "stopped_s": await _stopped_after(server, jobs[0], deleted_at),
    }
    await _tidy(server, jobs[3:])
    return figures


async def engine_kill(server: Server, model: Path, *, seed: int) -> dict[str, Any]:
    """Two of eight films are done, a third is on its way: kill -9 of the process that computes."""
    jobs = await _crowd(server, seed=seed)
    begun = time.perf_counter()
    kill(server.engine_pid())
    await asyncio.sleep(0.2)  # both are given the moment that noticing takes
    answer = await server.submit(steps=LONG, seed=seed + _CROWD)
    asked = [*jobs, *([answer.job_id] if answer.job_id else [])]
    recovered = await _time_of_next_film(server, asked, begun)
    figures = {"post_status": answer.status, "recovered_s": recovered, "restart_s": None} | await _fates(server, asked)
    if recovered is None:
        # Its /health says that it must be started again, so that is done.
        begun = time.perf_counter()
        await server.stop()
        await server.start(model)
        figures["restart_s"] = time.perf_counter() - begun
    return figures


async def api_restart(server: Server, model: Path, *, seed: int) -> dict[str, Any]:
    """Two of eight films are done: SIGTERM to the server, and the same command again."""
    jobs = await _crowd(server, seed=seed)
    begun = time.perf_counter()
    await server.stop()
    stopped = time.perf_counter() - begun
    return {"stop_s": stopped, "start_s": await server.start(model)} | await _fates(server, jobs)


async def api_kill(server: Server, model: Path, *, seed: int) -> dict[str, Any]:
    """Two of eight films are done: kill -9 of the process that answers HTTP."""
    jobs = await _crowd(server, seed=seed)
    begun = time.perf_counter()
    kill(server.gateway_pid() if isinstance(server, Rushes) else server.pid)
    if isinstance(server, Rushes):
        await _until_answering(server, jobs[0])
    else:
        # Nothing is left that would start it again.
        await server.stop()
        await server.start(model)
    return {"away_s": time.perf_counter() - begun} | await _fates(server, jobs)


async def _crowd(server: Server, *, seed: int) -> list[str]:
    """Eight films asked for, of which two are done by now and the others wait or are on their way."""
    jobs = [await server.must_submit(steps=LONG, seed=seed + n) for n in range(_CROWD)]
    for job_id in jobs[:_DONE_BEFORE]:
        await server.wait(job_id, every_s=0.05)
    await asyncio.sleep(0.2)
    return jobs


async def _fates(server: Server, jobs: list[str]) -> dict[str, int]:
    """What became of accepted films in the end: delivered, told as failed, still open, or never heard of."""
    # Those that make no headway are not waited for one after the other.
    ends = await asyncio.gather(*(server.wait(job_id, every_s=0.2, at_most_s=60.0) for job_id in jobs))
    films = await asyncio.gather(*(server.has_film(job_id) for job_id in jobs))
    told = Counter(ends)
    await _tidy(server, jobs)
    return {
        "accepted": len(jobs),
        "delivered": sum(film and end is Seen.DONE for film, end in zip(films, ends, strict=True)),
        "failed": told[Seen.FAILED],
        "open": told[Seen.OPEN],
        "unknown": told[Seen.UNKNOWN],
    }


async def _time_of_next_film(server: Server, jobs: list[str], begun: float) -> float | None:
    """Seconds since `begun` until one more film is done than were; None when that does not come."""
    while time.perf_counter() - begun < _RECOVERS_WITHIN_S:
        seen = Counter([await server.look(job_id) for job_id in jobs])
        if seen[Seen.DONE] > _DONE_BEFORE:
            return time.perf_counter() - begun
        if not seen[Seen.OPEN]:
            return None
        await asyncio.sleep(0.1)
    return None


async def _until_answering(server: Server, job_id: str) -> None:
    while True:
        try:
            await server.look(job_id)
        except httpx.HTTPError:
            await asyncio.sleep(0.02)
        else:
            return


async def _stopped_after(server: Server, job_id: str, deleted_at: float) -> float | None:
    """Seconds from DELETE until the engine was free of the film: by its record, or by the film's time of writing."""
    document = await server.document(job_id)
    if document is not None:
        return document["finished_at"] - deleted_at
    films = list(server.state.rglob(f"*{job_id}*.mp4"))
    return films[0].stat().st_mtime - deleted_at if films else None


async def _follow(server: Server, job_id: str) -> None:
    """Until the job's events end, as a client that is told instead of asking."""
    async with server.client.stream("GET", f"/jobs/{job_id}/events") as response:
        async for _ in response.aiter_lines():
            pass


async def _tidy(server: Server, jobs: list[str]) -> None:
    for job_id in jobs:
        await server.remove(job_id)
