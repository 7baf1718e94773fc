"""Delivering to real receivers: what they get, how often, and that one cannot hold up the others."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.types import ReleaseReason
from server.webhooks.signing import new_secret, signed_headers
from tests.server.outbound.receiver import Hit, Receiver, listening, status
from tests.server.queue.jobs import SUCCESS, new_job
from tests.server.webhooks.events import (
    DEAD,
    PREFIX,
    QUICK,
    SECRET,
    end_job,
    leftovers,
    local_fetcher,
    sending,
    until,
    until_empty,
    view_from,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    """A receiver that answers 204."""
    async with listening() as receiver:
        yield receiver


async def dead_letters(client: redis.Redis) -> list[dict[str, str]]:
    """What was given up."""
    return [fields for _, fields in await client.xrange(DEAD)]


def by_turns(*codes: int) -> object:
    """Answer with each code in turn, with the last for ever."""
    left = list(codes)

    async def answer(hit: Hit, writer: asyncio.StreamWriter) -> None:
        await status(left.pop(0) if len(left) > 1 else left[0])(hit, writer)

    return answer


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_a_jobs_end_is_told(redis_client: redis.Redis, receiver: Receiver, state: str) -> None:
    """The receiver gets the event, signed with each of the tenant's secrets, and Redis forgets it."""
    entry_id = await end_job(redis_client, "j", receiver.url("/in?token=1"), state=state)
    secrets = (new_secret(), SECRET)
    async with sending(redis_client, local_fetcher(receiver.port), secrets_of=lambda tenant: {"t": secrets}[tenant]):
        await until_empty(redis_client)
    (hit,) = receiver.hits
    assert hit.target == "/in?token=1"
    assert hit.headers["content-type"] == "application/json"
    event = json.loads(hit.body)
    assert event == {
        "id": hit.headers["webhook-id"],
        "type": f"job.{state}",
        "created_at": int(entry_id.split("-")[0]) / 1000,
        "data": {"id": "j", "state": state, "prompt": "a red ball, private"},
    }
    timestamp = int(hit.headers["webhook-timestamp"])
    signed = signed_headers(secrets, event_id=event["id"], timestamp=timestamp, body=hit.body)
    assert hit.headers["webhook-signature"] == signed["webhook-signature"]
    assert abs(timestamp - event["created_at"]) < 60
    assert await leftovers(redis_client) == set()
    assert await dead_letters(redis_client) == []


async def test_every_end_that_the_queue_knows_is_told(
    redis_client: redis.Redis, queue: JobQueue, receiver: Receiver
) -> None:
    """Finished, cancelled while it waits, or given up by the queue itself; a job without a webhook tells nobody."""
    webhook = receiver.url()
    for job_id in ("finished", "poison"):
        await queue.enqueue(new_job(job_id, webhook=webhook))
        (lease,) = await queue.lease("w1")
        if job_id == "finished":
            await queue.finish(job_id, lease.attempt, SUCCESS)
    await queue.release("poison", 1, ReleaseReason.CRASH, worker_id="w1")
    (lease,) = await queue.lease("w2")
    await queue.release("poison", lease.attempt, ReleaseReason.CRASH, worker_id="w2")
    await queue.enqueue(new_job("unwanted", webhook=webhook))
    await queue.cancel("unwanted")
    await queue.enqueue(new_job("quiet"))
    await queue.cancel("quiet")
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    told = {(event["data"]["id"], event["type"]) for event in (json.loads(hit.body) for hit in receiver.hits)}
    assert told == {("finished", "job.succeeded"), ("poison", "job.failed"), ("unwanted", "job.cancelled")}
    assert len(receiver.hits) == 3


async def test_failures_are_tried_again_with_the_same_event(redis_client: redis.Redis, receiver: Receiver) -> None:
    """Until a 2xx; id and body do not change, though the job is forgotten after the first attempt."""
    answer = by_turns(500, 302, 404, 200)

    async def forgetting(hit: Hit, writer: asyncio.StreamWriter) -> None:
        await redis_client.delete(f"{PREFIX}:job:j")
        await answer(hit, writer)  # type: ignore[operator]

    receiver.answer = forgetting
    await end_job(redis_client, "j", receiver.url())
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    assert len(receiver.hits) == 4
    assert len({(hit.headers["webhook-id"], hit.body) for hit in receiver.hits}) == 1
    assert await leftovers(redis_client) == set()


async def test_a_receiver_that_never_says_yes_is_given_up(redis_client: redis.Redis, receiver: Receiver) -> None:
    """After the last attempt the event is among the dead, with its reason."""
    receiver.answer = status(503)
    await end_job(redis_client, "j", receiver.url("/in?token=hunter2"))
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    assert len(receiver.hits) == len(QUICK) + 1
    (dead,) = await dead_letters(redis_client)
    assert dead["reason"] == "127.0.0.1 answered 503"
    assert (dead["job"], dead["host"], dead["failures"]) == ("j", "127.0.0.1", "4")
    assert "hunter2" not in str(dead)


async def test_gone_means_gone(redis_client: redis.Redis, receiver: Receiver) -> None:
    """410 ends it at the first attempt."""
    receiver.answer = status(410)
    await end_job(redis_client, "j", receiver.url())
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    assert len(receiver.hits) == 1
    assert "410" in (await dead_letters(redis_client))[0]["reason"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:22/", "port is 22"),
        ("file:///etc/passwd", "cannot be called"),
        ("http://10.0.0.1/", "10.0.0.1"),
    ],
)
async def test_a_url_that_may_not_be_called_is_given_up(redis_client: redis.Redis, url: str, reason: str) -> None:
    """The policy may have changed since the job was admitted; no later attempt would help."""
    await end_job(redis_client, "j", url)
    async with sending(redis_client, local_fetcher(80)):
        await until_empty(redis_client)
    assert reason in (await dead_letters(redis_client))[0]["reason"]


async def test_a_forgotten_job_is_given_up(redis_client: redis.Redis, receiver: Receiver) -> None:
    """Nobody knows any more whom to tell what."""
    await end_job(redis_client, "j", receiver.url())
    await redis_client.delete(f"{PREFIX}:job:j")
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    assert receiver.hits == []
    assert (await dead_letters(redis_client))[0]["reason"] == "the job is no longer kept"


async def test_nothing_is_sent_unsigned(redis_client: redis.Redis, receiver: Receiver) -> None:
    """A tenant without a secret is tried again, for the operator may give it one, and then given up."""
    await end_job(redis_client, "j", receiver.url())
    async with sending(redis_client, local_fetcher(receiver.port), secrets_of=lambda _: ()):
        await until_empty(redis_client)
    assert receiver.hits == []
    assert (await dead_letters(redis_client))[0]["reason"] == "tenant 't' has no secret to sign with"


async def test_one_events_fault_stops_no_other(redis_client: redis.Redis, receiver: Receiver) -> None:
    """A job that cannot be shown is given up in the end, without a word of it in the reason; the others are told."""
    view = view_from(redis_client)

    async def sometimes(job_id: str) -> object:
        if job_id == "bad":
            raise KeyError("a red ball, private")
        return await view(job_id)

    for job_id in ("bad", "good"):
        await end_job(redis_client, job_id, receiver.url())
    async with sending(redis_client, local_fetcher(receiver.port), body_of=sometimes):
        await until_empty(redis_client)
    assert [json.loads(hit.body)["data"]["id"] for hit in receiver.hits] == ["good"]
    (dead,) = await dead_letters(redis_client)
    assert dead["job"] == "bad"
    assert dead["reason"].startswith("KeyError in this server, test_sender.py line ")


async def test_a_dead_receiver_holds_nobody_up(redis_client: redis.Redis, receiver: Receiver) -> None:
    """Far more events than calls can be open wait for a silent receiver; another's are told all the same."""
    open_calls, most_open = 0, 0

    async def silent(hit: Hit, writer: asyncio.StreamWriter) -> None:
        nonlocal open_calls, most_open
        open_calls += 1
        most_open = max(most_open, open_calls)
        try:
            await asyncio.sleep(60)
        finally:
            open_calls -= 1

    async with listening("127.0.0.2") as dead:
        dead.answer = silent
        for number in range(400):
            await end_job(redis_client, f"dead{number}", dead.url())
        for number in range(20):
            await end_job(redis_client, f"good{number}", receiver.url())
        async with sending(redis_client, local_fetcher(receiver.port, dead.port)):
            await until(lambda: len(receiver.hits) == 20)
            assert 1 <= len(dead.hits) <= 4
    assert most_open <= 4


async def test_a_burst_to_one_receiver_keeps_to_its_bound(redis_client: redis.Redis, receiver: Receiver) -> None:
    """Many events at once all arrive, each once, never more than four calls open."""
    open_calls, most_open = 0, 0

    async def busy(hit: Hit, writer: asyncio.StreamWriter) -> None:
        nonlocal open_calls, most_open
        open_calls += 1
        most_open = max(most_open, open_calls)
        await asyncio.sleep(0.01)
        open_calls -= 1
        await status(204)(hit, writer)

    receiver.answer = busy
    for number in range(100):
        await end_job(redis_client, f"j{number}", receiver.url())
    async with sending(redis_client, local_fetcher(receiver.port)):
        await until_empty(redis_client)
    assert most_open <= 4
    assert len(receiver.hits) == len({hit.headers["webhook-id"] for hit in receiver.hits}) == 100
    assert await leftovers(redis_client) == set()


async def test_two_senders_share_the_work(redis_client: redis.Redis, receiver: Receiver) -> None:
    """Failures and successes of fifty events, and no event is sent by both."""
    failed: set[str] = set()

    async def first_fails(hit: Hit, writer: asyncio.StreamWriter) -> None:
        event_id = hit.headers["webhook-id"]
        code = 204 if event_id in failed else 500
        failed.add(event_id)
        await status(code)(hit, writer)

    receiver.answer = first_fails
    for number in range(50):
        await end_job(redis_client, f"j{number}", receiver.url())
    fetcher = local_fetcher(receiver.port)
    async with sending(redis_client, fetcher), sending(redis_client, fetcher):
        await until_empty(redis_client)
    assert len(receiver.hits) == 100
    assert await dead_letters(redis_client) == []


async def test_a_sender_ends_when_it_is_told_to(redis_client: redis.Redis) -> None:
    """Cancelled at any moment of busy work, be it within a call to Redis, it is over soon."""
    chance = random.Random(3)
    async with listening("127.0.0.2") as dead:
        dead.answer = by_turns(500)
        for _ in range(40):
            for number in range(5):
                await end_job(redis_client, f"j{number}", dead.url())
            async with asyncio.timeout(20):
                async with sending(redis_client, local_fetcher(dead.port)):
                    await asyncio.sleep(chance.uniform(0, 0.1))


async def test_logs_tell_hosts_and_no_more(
    redis_client: redis.Redis, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """At the most talkative level, libraries included: no path, query, body, secret or signature."""
    caplog.set_level(logging.DEBUG)
    receiver.answer = by_turns(500, 204, 410)  # type: ignore[assignment]
    for number in range(2):
        await end_job(redis_client, f"j{number}", receiver.url("/path-hunter2?token=hunter3"))
        async with sending(redis_client, local_fetcher(receiver.port)):
            await until_empty(redis_client)
    assert "tried again" in caplog.text
    assert "delivered to 127.0.0.1" in caplog.text
    assert "is given up: the receiver answered 410" in caplog.text
    signatures = [hit.headers["webhook-signature"] for hit in receiver.hits]
    for word in ("hunter", "private", SECRET, SECRET[6:], *signatures):
        assert word not in caplog.text
