"""Delivering webhooks: each entry of the outbox is posted, put off or given up, at least once and for ever."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, NoReturn, TypeAlias

from redis.exceptions import RedisError

from server.outbound.destination import destination_of
from server.outbound.errors import OutboundError, UnreachableError, UrlRefusedError
from server.outbound.fetcher import Fetcher
from server.webhooks.lanes import Lanes
from server.webhooks.outbox import Delivery, Outbox
from server.webhooks.schedule import RETRY_DELAYS_S, delay_after
from server.webhooks.signing import signed_headers

BodyOf: TypeAlias = Callable[[str], Awaitable[dict[str, Any] | None]]
SecretsOf: TypeAlias = Callable[[str], Sequence[str]]

_log = logging.getLogger(__name__)
_MOST_AT_ONCE = 128
_SHORT_WAIT_S = 1.0  # what is not worth the way through Redis and back
_REDIS_CALLS_AT_ONCE = 8
_REDIS_PAUSE_S = 0.5
_REDIS_PATIENCE_S = 60.0
_GONE = 410


class FailedAttemptError(Exception):
    """The receiver answered, but not with success; the message says what."""


class UndeliverableError(Exception):
    """No later attempt can succeed; the message says why."""


class WebhookSender:
    """Empties an outbox. Several may work on one; each event is then still sent by one of them at a time.

    At least once: an event leaves the outbox only after a receiver's 2xx. A sender that dies between the two sends it
    again, under the same webhook-id. There is no order between events.
    """

    def __init__(
        self,
        outbox: Outbox,
        fetcher: Fetcher,
        *,
        body_of: BodyOf,
        secrets_of: SecretsOf,
        lanes: Lanes | None = None,
        delays_s: Sequence[float] = RETRY_DELAYS_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`body_of(job_id)` gives a job's public view as JSON types, None when it is no longer kept; `secrets_of`
        gives a tenant's signing secrets, newest first."""
        self._outbox = outbox
        self._fetcher = fetcher
        self._body_of = body_of
        self._secrets_of = secrets_of
        self._lanes = lanes or Lanes()
        self._delays_s = delays_s
        self._chance = chance
        # Each call to Redis takes a connection; opened all at once they would time one another out.
        self._turns = asyncio.Semaphore(_REDIS_CALLS_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> NoReturn:
        """For ever; when it is cancelled, what is under way is cut off and sent again by whoever comes next."""
        reachable = True
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._outbox.open()
                    if not reachable:
                        _log.info("the outbox can be reached again")
                    reachable = True
                    await self._empty(group)
                except RedisError as error:
                    if reachable:
                        _log.warning("the outbox cannot be reached: %s", type(error).__name__)
                    reachable = False
                    await asyncio.sleep(_REDIS_PAUSE_S)

    async def _empty(self, group: asyncio.TaskGroup) -> NoReturn:
        loop = asyncio.get_running_loop()
        searched_at = float("-inf")
        while True:
            deliveries: list[Delivery] = []
            if loop.time() - searched_at > self._outbox.abandoned_after_s / 6:
                # One of our own that waits long for Redis to note what became of it looks abandoned, too.
                held = {task.get_name() for task in self._running}
                found = await self._outbox.take_abandoned(self._free(1))
                deliveries += [delivery for delivery in found if delivery.id not in held]
                if self._outbox.searched_all:
                    searched_at = loop.time()
            # Half for each, so that neither old failures nor a flood of new events can keep the other waiting.
            deliveries += await self._outbox.take_due(self._free(2))
            deliveries += await self._outbox.take_new(self._free(2), wait=not deliveries)
            for delivery in deliveries:
                task = group.create_task(self._carry(delivery), name=delivery.id)
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            if len(self._running) >= _MOST_AT_ONCE:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def _free(self, share: int) -> int:
        return max(1, (_MOST_AT_ONCE - len(self._running)) // share)

    async def _carry(self, delivery: Delivery) -> None:
        """Take one entry a step further. What Redis keeps from being noted is found abandoned and taken up again."""
        try:
            await self._step(delivery)
        except RedisError as error:
            _log.warning("webhook of job %s is left for later: %s", delivery.job_id, type(error).__name__)

    async def _step(self, delivery: Delivery) -> None:
        try:
            delivery = await self._written(delivery)
            wait_s = await self._send(delivery)
        except (UndeliverableError, UrlRefusedError) as error:
            await self._give_up(delivery, str(error))
        except (FailedAttemptError, OutboundError) as error:
            await self._failed(delivery, str(error))
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - the webhook sender's wall: one event's fault stops no other
            await self._failed(delivery, _fault(error))
        else:
            if wait_s:
                await self._insist(lambda: self._outbox.put_off(delivery, wait_s))
            else:
                await self._insist(lambda: self._outbox.close(delivery))

    async def _written(self, delivery: Delivery) -> Delivery:
        """The delivery with its URL and body; an event is written once, so that each attempt says the same."""
        if delivery.url is not None and delivery.body is not None:
            return delivery
        async with self._turns:
            webhook = await self._outbox.webhook_of(delivery.job_id)
            data = await self._body_of(delivery.job_id)
        if webhook is None or data is None:
            raise UndeliverableError("the job is no longer kept")
        event = {
            "id": _event_id(delivery),
            "type": f"job.{delivery.state}",
            "created_at": delivery.created_at,
            "data": data,
        }
        return replace(delivery, url=webhook, body=json.dumps(event))

    async def _send(self, delivery: Delivery) -> float:
        """POST it and return 0, or the seconds to wait when its receiver has enough calls open already."""
        assert delivery.url is not None and delivery.body is not None
        host = destination_of(delivery.url, self._fetcher.policy).host
        wait_s = await self._enter(host, delivery.tenant)
        if wait_s:
            return wait_s
        clock = asyncio.get_running_loop().time
        began, answered = clock(), True
        try:
            status = await self._post(delivery.url, delivery, delivery.body.encode())
        except UnreachableError:
            answered = False
            raise
        finally:
            ended = clock()
            self._lanes.leave(host, delivery.tenant, answered=answered, took_s=ended - began, now=ended)
        if status == _GONE:
            raise UndeliverableError("the receiver answered 410: it wants no more")
        if not 200 <= status < 300:
            raise FailedAttemptError(f"{host} answered {status}")
        _log.debug("webhook of job %s delivered to %s", delivery.job_id, host)
        return 0.0

    async def _enter(self, host: str, tenant: str) -> float:
        """Take a place among the calls to the host, waiting for a short while, and return 0; or the seconds to wait."""
        clock = asyncio.get_running_loop().time
        latest = clock() + _SHORT_WAIT_S
        while wait_s := self._lanes.enter(host, tenant, now=clock()):
            if clock() + wait_s > latest:
                return wait_s
            await asyncio.sleep(wait_s)
        return 0.0

    async def _post(self, url: str, delivery: Delivery, body: bytes) -> int:
        async with self._turns:
            timestamp = int(await self._outbox.now())
        signers = self._secrets_of(delivery.tenant)
        if not signers:
            raise FailedAttemptError(f"tenant {delivery.tenant!r} has no secret to sign with")
        headers = {"Content-Type": "application/json", "User-Agent": "rushes"}
        headers |= signed_headers(signers, event_id=_event_id(delivery), timestamp=timestamp, body=body)
        return await self._fetcher.post(url, headers=headers, body=body)

    async def _failed(self, delivery: Delivery, reason: str) -> None:
        delivery = replace(delivery, failures=delivery.failures + 1)
        delay_s = delay_after(delivery.failures, self._chance(), self._delays_s)
        if delay_s is None:
            await self._give_up(delivery, reason)
            return
        _log.info(
            "webhook of job %s failed %d times and is tried again in %.0f s: %s",
            delivery.job_id, delivery.failures, delay_s, reason,
        )  # fmt: skip
        await self._insist(lambda: self._outbox.put_off(delivery, delay_s))

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        host = self._host(delivery.url)
        _log.warning("webhook of job %s to %s is given up: %s", delivery.job_id, host, reason)
        await self._insist(lambda: self._outbox.bury(delivery, host=host, reason=reason))

    def _host(self, url: str | None) -> str:
        try:
            return destination_of(url or "", self._fetcher.policy).host
        except UrlRefusedError:
            return "nowhere"

    async def _insist(self, note: Callable[[], Awaitable[None]]) -> None:
        """Note something in Redis, though it be away for a while: a delivery that is not noted is made again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _REDIS_PATIENCE_S
        while True:
            try:
                async with self._turns:
                    await note()
            except RedisError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_REDIS_PAUSE_S)
            else:
                return


def _fault(error: Exception) -> str:
    """What went wrong in this server, and where; not the error's text, which may show what the job holds."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in this server, {PurePath(last.filename).name} line {last.lineno}"


def _event_id(delivery: Delivery) -> str:
    """The same for every attempt and every sender, whatever became of Redis: a job ends once."""
    return "evt_" + hashlib.sha256(f"{delivery.job_id}.{delivery.state}".encode()).hexdigest()[:32]
