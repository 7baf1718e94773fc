"""How many requests gateways answer a second, and how soon: each connection asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from server.bench.figures import latencies_ms
from server.bench.gateway_site import FILM, GatewaySite, gateways
from server.bench.http_client import Answer, Connection

_Ask = Callable[[Connection], Awaitable[Answer]]
_WARM_UP_S = 1.0


async def measure_rate(folder: Path, *, connections: int, count: int, seconds: float) -> dict[str, Any]:
    """Requests a second for POST /generate into a queue that takes all, and for GET /jobs/{id} of a waiting job."""
    async with gateways(folder, count, queue_max_jobs=1_000_000, queue_max_seconds=1e8) as site:
        created = await _closed_loop(site, connections, seconds, lambda c: c.post("/generate", FILM), expected=202)
        waiting = (await site.queue.depth()).queued
        connection = site.connection()
        path = (await connection.post("/generate", FILM)).headers["location"]
        await connection.close()
        read = await _closed_loop(site, connections, seconds, lambda c: c.get(path), expected=200)
    return {"create": created | {"waiting_in_the_end": waiting}, "status": read}


async def _closed_loop(
    site: GatewaySite, connections: int, seconds: float, ask: _Ask, *, expected: int
) -> dict[str, Any]:
    """Figures of `seconds` after a short warm-up; `errors` are answers with another status than `expected`."""
    begins = time.perf_counter() + _WARM_UP_S
    ends = begins + seconds
    times: list[float] = []
    statuses: Counter[int] = Counter()

    async def one() -> None:
        connection = site.connection()
        while time.perf_counter() < ends:
            answer = await ask(connection)
            if time.perf_counter() >= begins:
                statuses[answer.status] += 1
                times.append(answer.seconds)
        await connection.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return {
        "per_second": round(len(times) / seconds, 1),
        "latency_ms": latencies_ms(times),
        "errors": sum(statuses.values()) - statuses[expected],
        "connections": connections,
    }
