"""More work than a server can do: is the surplus refused in time, is Retry-After true, and what comes of deadlines?"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

from beside.rows import LONG
from beside.servers import Answer, Seen, Server

WAITING = 8  # films' worth of work that may wait, where the server can be told so
_BURST = 32
_OFFERED = 2.0  # times what the server can do
DEADLINE = 6.0  # in films' time
_LOOKS_S = 0.1
_PROBE_STEPS = (LONG, 2 * LONG)


async def service_time(server: Server, *, n: int = 5) -> float:
    """Seconds of a film of LONG steps on the idle server, the median of `n`."""
    seconds = []
    for seed in range(n):
        begun = time.perf_counter()
        await server.wait(await server.must_submit(steps=LONG, seed=seed), every_s=0.02)
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[n // 2]


async def surplus(server: Server, *, seed: int) -> dict[str, Any]:
    """32 films at once where eight films' worth may wait."""
    service_s = await service_time(server)  # and a server that has just started learns it too
    answers = await asyncio.gather(*(server.submit(steps=LONG, seed=seed + n) for n in range(_BURST)))
    refused = [answer for answer in answers if answer.job_id is None]
    accepted = [answer.job_id for answer in answers if answer.job_id is not None]
    figures: dict[str, Any] = {
        "service_s": service_s,
        "accepted": len(accepted),
        "refused": len(refused),
        "statuses": sorted({answer.status for answer in refused}),
        "answer_s": sorted(answer.seconds for answer in answers),
        "retry_after_s": sorted(answer.retry_after for answer in refused if answer.retry_after is not None),
        "truth": [],
    }
    for steps in _PROBE_STEPS if refused else ():
        figures["truth"].append(await _probe(server, steps, seed=seed + _BURST))
        accepted += await _fill(server, seed=seed)
    figures["done"] = sum([await server.wait(job_id, every_s=0.2) is Seen.DONE for job_id in accepted])
    figures["accepted_in_all"] = len(accepted)
    return figures


async def _probe(server: Server, steps: int, *, seed: int) -> dict[str, float | None]:
    """Ask for a film until it is accepted: what the first Retry-After said, and how long it really took."""
    begun = time.perf_counter()
    first = answer = await server.submit(steps=steps, seed=seed)
    while answer.job_id is None:
        _insist_on_429(answer)
        await asyncio.sleep(0.05)
        answer = await server.submit(steps=steps, seed=seed)
    waited = time.perf_counter() - begun
    await server.remove(answer.job_id)
    return {"steps": steps, "said_s": first.retry_after, "waited_s": waited}


async def _fill(server: Server, *, seed: int) -> list[str]:
    """Ask for films until one is refused."""
    accepted: list[str] = []
    while (answer := await server.submit(steps=LONG, seed=seed)).job_id is not None:
        accepted.append(answer.job_id)
    _insist_on_429(answer)
    return accepted


def _insist_on_429(answer: Answer) -> None:
    """A film that is refused for another reason than want of room would be asked for for ever."""
    if answer.status != 429:
        raise RuntimeError(f"a film was refused with {answer.status} instead of 429")


@dataclass(slots=True)
class _Tally:
    good: int = 0
    late: int = 0
    never_accepted: int = 0
    refusals: int = 0


async def goodput(server: Server, *, seconds: float, seed: int) -> dict[str, Any]:
    """Clients come twice as often as films can be made and want theirs within six films' time, or not at all.

    Who is refused comes back when Retry-After says so; who is not served in time deletes the job and leaves. The
    service time is each server's own, so that none gains by a faster engine.
    """
    service_s = await service_time(server)
    rng = random.Random(seed)
    arrivals, at = [], 0.0
    while (at := at + rng.expovariate(_OFFERED / service_s)) < seconds:
        arrivals.append(at)
    tally = _Tally()
    begun = time.perf_counter()

    async def client(number: int) -> None:
        await asyncio.sleep(arrivals[number] - (time.perf_counter() - begun))
        await _one_client(server, tally, deadline_s=DEADLINE * service_s, seed=seed + number)

    await asyncio.gather(*(client(number) for number in range(len(arrivals))))
    span = time.perf_counter() - begun
    after = time.perf_counter()
    # Films that nobody waits for any more may be in the way, for longer than the server itself lets a film wait.
    while await server.wait(await server.must_submit(steps=LONG, seed=seed), every_s=0.05) is not Seen.DONE:
        pass
    return {
        "service_s": service_s,
        "offered": len(arrivals),
        "good": tally.good,
        "late": tally.late,
        "never_accepted": tally.never_accepted,
        "refusals": tally.refusals,
        # Of the films that could have been made from the first arrival to the last client's end.
        "share_of_capacity": tally.good * service_s / span,
        "next_film_s": time.perf_counter() - after,
    }


async def _one_client(server: Server, tally: _Tally, *, deadline_s: float, seed: int) -> None:
    end = time.perf_counter() + deadline_s
    answer = await _ask_until(server, tally, end, seed)
    if answer is None or answer.job_id is None:
        tally.never_accepted += 1
        return
    while time.perf_counter() < end:
        if await server.look(answer.job_id) is Seen.DONE and await server.has_film(answer.job_id):
            tally.good += 1
            return
        await asyncio.sleep(_LOOKS_S)
    tally.late += 1
    await server.remove(answer.job_id)


async def _ask_until(server: Server, tally: _Tally, end: float, seed: int) -> Answer | None:
    """An acceptance, or None when the deadline comes before one."""
    while True:
        answer = await server.submit(steps=LONG, seed=seed)
        if answer.job_id is not None:
            return answer
        tally.refusals += 1
        pause = answer.retry_after or 1.0
        if time.perf_counter() + pause >= end:
            return None
        await asyncio.sleep(pause)
