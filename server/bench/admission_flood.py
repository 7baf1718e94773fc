"""Four times as many requests as the workers can serve: what waits stays bounded, the surplus is refused at once.

Requests are sent by the clock, whether or not earlier ones are answered, as a crowd does.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from server.bench.figures import latencies_ms
from server.bench.gateway_site import FILM, GatewaySite, gateways

_BOUND = 10  # jobs that may wait
_WORKERS = 2
_CAPACITY_S = 5.0
_TRIALS = 4
_HEARD_OF_S = 4.0
# Of these the queue takes so many predicted seconds.
_SLOW, _SLOWEST = (FILM | {"num_inference_steps": steps} for steps in (30, 100))
_WAITING_S = 6.0


@dataclass(slots=True)
class _Seen:
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: int = 0
    without_retry_after: int = 0


async def measure_flood(folder: Path, *, count: int, seconds: float, times: float) -> dict[str, Any]:
    """Depth, latencies of what is accepted and refused, growth of the gateways, and how true Retry-After is."""
    async with gateways(folder, count, queue_max_jobs=_BOUND) as site:
        await site.start_workers(_WORKERS)
        capacity = await _capacity(site)
        # Memory is compared with a gateway that has been busy, not with one that has done nothing yet.
        before = site.memory_bytes()
        seen, depths, largest = await _flood(site, rate=times * capacity, seconds=seconds)
    ratios = await _retry_after_ratios(folder.with_name(f"{folder.name}-retry-after"))
    return {
        "capacity_per_second": round(capacity, 1),
        "offered_per_second": round(times * capacity, 1),
        "accepted": len(seen.accepted),
        "refused": len(seen.refused),
        "other_answers": seen.others,
        "refused_without_retry_after": seen.without_retry_after,
        "bound": _BOUND,
        "deepest": max(depths),
        "accepted_ms": latencies_ms(seen.accepted),
        "refused_ms": latencies_ms(seen.refused),
        "gateways_grew_mb": round((largest - before) / 2**20, 1),
        "retry_after_over_truth": {
            "median": median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "n": len(ratios),
        },
    }


async def _capacity(site: GatewaySite) -> float:
    """Jobs a second that the workers finish while there is always one waiting."""
    ends = time.perf_counter() + _CAPACITY_S
    connection = site.connection()
    accepted = 0
    while time.perf_counter() < ends:
        accepted += (await connection.post("/generate", FILM)).status == 202
        if (await site.queue.depth()).queued >= _BOUND - 1:
            await asyncio.sleep(0.02)
    await connection.close()
    return max(1.0, (accepted - (await site.queue.depth()).queued) / _CAPACITY_S)


async def _flood(site: GatewaySite, *, rate: float, seconds: float) -> tuple[_Seen, list[int], int]:
    seen, depths, sizes = _Seen(), [0], [0]
    began = time.perf_counter()
    ended = asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            depths.append((await site.queue.depth()).queued)
            sizes.append(site.memory_bytes())
            await asyncio.sleep(0.05)

    async def caller(first: int, step: int) -> None:
        """Every `step`-th request of the crowd, at its moment or as soon after as the one before is answered."""
        connection = site.connection()
        for number in range(first, int(rate * seconds), step):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            answer = await connection.post("/generate", FILM)
            if answer.status == 202:
                seen.accepted.append(answer.seconds)
            elif answer.status == 429:
                seen.refused.append(answer.seconds)
                seen.without_retry_after += "retry-after" not in answer.headers
            else:
                seen.others += 1
        await connection.close()

    watching = asyncio.create_task(watch())
    callers = 64
    await asyncio.gather(*(caller(first, callers) for first in range(callers)))
    ended.set()
    await watching
    return seen, depths, max(sizes)


async def _retry_after_ratios(folder: Path) -> list[float]:
    """What a refused client was told to wait, over what it would have had to, for films that take seconds."""
    ratios = []
    async with gateways(folder, 1, queue_max_seconds=_WAITING_S) as site:
        await site.start_workers(1)
        connection = site.connection()
        # Before its first film a worker knows no speed, and so long after it a gateway has heard of it.
        await connection.post("/generate", _SLOW)
        await asyncio.sleep(_HEARD_OF_S)
        for _ in range(_TRIALS):
            while (await connection.post("/generate", _SLOW)).status == 202:
                pass
            answer = await connection.post("/generate", _SLOWEST)
            told, began = float(answer.headers.get("retry-after", math.nan)), time.perf_counter()
            while (await connection.post("/generate", _SLOWEST)).status != 202:  # noqa: ASYNC110 - room is not told of
                await asyncio.sleep(0.02)
            ratios.append(round(told / (time.perf_counter() - began), 2))
        await connection.close()
    return ratios
