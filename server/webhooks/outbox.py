"""The outbox in Redis: a stream entry lives from its job's end until its webhook is delivered or given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ResponseError

_GROUP = "webhooks"
# One name for all senders: which of them holds an entry matters to nobody, how long ago it was taken does.
_CONSUMER = "sender"
_BLOCK_MS = 300  # well below any reply time-out, so that a dead server is told from a quiet outbox
_PAGE = 200
_LETTER_TTL_MS = 172_800_000  # longer than any wait between two attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An outbox entry in hand. `url` and `body` are there once it has been written, `failures` counts attempts."""

    id: str
    job_id: str
    state: str
    tenant: str
    url: str | None = None
    body: str | None = None
    failures: int = 0

    @property
    def created_at(self) -> float:
        """When the job ended, in Unix seconds by Redis's clock."""
        return int(self.id.partition("-")[0]) / 1000


class Outbox:
    """The stream `<prefix>:outbox` and what goes with it; every method may raise `redis.exceptions.RedisError`.

    An entry that is taken stays pending in the group `webhooks`. It is either in somebody's hands, or waits in the
    sorted set `retries`; if it is neither for `abandoned_after_s` seconds, its sender died and anyone takes it up.
    """

    def __init__(
        self, client: redis.Redis, *, prefix: str, abandoned_after_s: float = 30.0, max_dead: int = 1000
    ) -> None:
        """`prefix` is the queue's, such as {q:default}; `abandoned_after_s` must exceed what one attempt can take."""
        self.abandoned_after_s = abandoned_after_s
        self._redis = client
        self._prefix = prefix
        self._stream = f"{prefix}:outbox"
        self._retries = f"{prefix}:outbox:retries"
        self._dead = f"{prefix}:outbox:dead"
        self._max_dead = max_dead
        self._searched = "-"

    @property
    def searched_all(self) -> bool:
        """Whether the last `take_abandoned` came to the end of what is pending."""
        return self._searched == "-"

    async def open(self) -> None:
        """Make the consumer group unless it is there; entries older than the group belong to it."""
        try:
            await self._redis.xgroup_create(self._stream, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def now(self) -> float:
        """Unix seconds by Redis's clock, which all senders share."""
        seconds, microseconds = await self._redis.time()
        return seconds + microseconds / 1e6

    async def take_new(self, count: int, *, wait: bool) -> list[Delivery]:
        """Up to `count` entries that nobody has had; with `wait` a moment may pass until there are any."""
        block = await self._idle_ms() if wait else None
        answer: Any = await self._redis.xreadgroup(_GROUP, _CONSUMER, {self._stream: ">"}, count=count, block=block)
        return [_delivery(entry_id, fields, {}) for entry_id, fields in (answer[0][1] if answer else [])]

    async def take_due(self, count: int) -> list[Delivery]:
        """Up to `count` entries whose time to be tried again has come."""
        now = await self.now()
        ids: Any = await self._redis.zrangebyscore(self._retries, "-inf", now, start=0, num=count)
        async with self._redis.pipeline() as pipeline:
            for entry_id in ids:
                pipeline.zrem(self._retries, entry_id)
                pipeline.xclaim(self._stream, _GROUP, _CONSUMER, 0, [entry_id])
            answers = await pipeline.execute() if ids else []
        # Whoever removed it from the set has it; the claim restarts its idle time, by which the dead are told.
        taken = [claimed for removed, claimed in zip(answers[::2], answers[1::2], strict=True) if removed]
        return await self._with_letters([entry for entries in taken for entry in entries])

    async def take_abandoned(self, count: int) -> list[Delivery]:
        """Up to `count` entries whose sender died; each call searches a part, until `searched_all`.

        Not XAUTOCLAIM, which would claim what only waits to be tried again as well.
        """
        idle_ms = round(self.abandoned_after_s * 1000)
        pending: Any = await self._redis.xpending_range(
            self._stream, _GROUP, min=self._searched, max="+", count=_PAGE, idle=idle_ms
        )
        ids = [entry["message_id"] for entry in pending]
        self._searched = f"({ids[-1]}" if len(ids) == _PAGE else "-"
        if not ids:
            return []
        scores: Any = await self._redis.zmscore(self._retries, ids)
        lost = [entry_id for entry_id, score in zip(ids, scores, strict=True) if score is None][:count]
        claimed: Any = await self._redis.xclaim(self._stream, _GROUP, _CONSUMER, idle_ms, lost) if lost else []
        return await self._with_letters(claimed)

    async def webhook_of(self, job_id: str) -> str | None:
        """The URL of the job's webhook; None when the job is no longer kept."""
        text: Any = await self._redis.hget(f"{self._prefix}:job:{job_id}", "webhook")
        return text

    async def put_off(self, delivery: Delivery, delay_s: float) -> None:
        """Let the entry wait; its letter is kept, so that it outlives its job and says the same next time."""
        due = await self.now() + delay_s
        letter = {"url": delivery.url, "body": delivery.body, "failures": delivery.failures}
        async with self._redis.pipeline() as pipeline:
            key = self._letter_key(delivery.id)
            pipeline.hset(key, mapping={name: value for name, value in letter.items() if value is not None})
            pipeline.pexpire(key, _LETTER_TTL_MS)
            pipeline.zadd(self._retries, {delivery.id: due})
            await pipeline.execute()

    async def close(self, delivery: Delivery) -> None:
        """The entry is done with."""
        async with self._redis.pipeline() as pipeline:
            self._remove(pipeline, delivery.id)
            await pipeline.execute()

    async def bury(self, delivery: Delivery, *, host: str, reason: str) -> None:
        """The entry is given up; what is known of it goes to the end of the bounded list of the dead."""
        facts: dict[Any, Any] = {
            "job": delivery.job_id,
            "state": delivery.state,
            "tenant": delivery.tenant,
            "host": host,
            "failures": delivery.failures,
            "reason": reason,
        }
        async with self._redis.pipeline() as pipeline:
            pipeline.xadd(self._dead, facts, maxlen=self._max_dead, approximate=False)
            self._remove(pipeline, delivery.id)
            await pipeline.execute()

    async def _idle_ms(self) -> int:
        """How long there is nothing to do but to wait for new entries; never 0, which would be for ever."""
        first: Any = await self._redis.zrange(self._retries, 0, 0, withscores=True)
        due_s = first[0][1] - await self.now() if first else _BLOCK_MS
        return max(1, min(_BLOCK_MS, round(due_s * 1000)))

    def _remove(self, pipeline: Any, entry_id: str) -> None:
        pipeline.xack(self._stream, _GROUP, entry_id)
        pipeline.xdel(self._stream, entry_id)
        pipeline.zrem(self._retries, entry_id)
        pipeline.delete(self._letter_key(entry_id))

    async def _with_letters(self, claimed: list[tuple[str, dict[str, str]]]) -> list[Delivery]:
        if not claimed:
            return []
        async with self._redis.pipeline() as pipeline:
            for entry_id, _ in claimed:
                pipeline.hgetall(self._letter_key(entry_id))
            letters = await pipeline.execute()
        return [
            _delivery(entry_id, fields, letter) for (entry_id, fields), letter in zip(claimed, letters, strict=True)
        ]

    def _letter_key(self, entry_id: str) -> str:
        return f"{self._prefix}:outbox:letter:{entry_id}"


def _delivery(entry_id: str, fields: dict[str, str], letter: dict[str, str]) -> Delivery:
    return Delivery(
        id=entry_id,
        job_id=fields.get("job", ""),
        state=fields.get("state", ""),
        tenant=fields.get("tenant", ""),
        url=letter.get("url"),
        body=letter.get("body"),
        failures=int(letter.get("failures", 0)),
    )
