"""The outbox in a real server: who holds an entry, and that none gets lost between two hands."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio as redis

from tests.server.webhooks.events import DEAD, OUTBOX, end_job, leftovers, outbox_of, until

pytestmark = pytest.mark.anyio


async def test_an_entry_is_given_out_once(redis_client: redis.Redis) -> None:
    """Entries older than the group are found, each by one of several senders, with what the queue wrote."""
    ids = [await end_job(redis_client, f"j{number}", "https://a.example/") for number in range(10)]
    outboxes = [outbox_of(redis_client) for _ in range(3)]
    for outbox in outboxes:
        await outbox.open()
    taken = await asyncio.gather(*(outbox.take_new(4, wait=False) for outbox in outboxes))
    assert sorted(delivery.id for some in taken for delivery in some) == ids
    assert await outboxes[0].take_new(1, wait=True) == []
    (first,) = [delivery for some in taken for delivery in some if delivery.id == ids[0]]
    assert (first.job_id, first.state, first.tenant, first.failures) == ("j0", "succeeded", "t", 0)
    assert abs(first.created_at - await outboxes[0].now()) < 60


async def test_what_was_put_off_comes_back_once_with_its_letter(redis_client: redis.Redis) -> None:
    """Not before its time, to one of several senders, unchanged even though the job has been forgotten."""
    await end_job(redis_client, "j", "https://a.example/")
    outbox, other = outbox_of(redis_client), outbox_of(redis_client)
    await outbox.open()
    (delivery,) = await outbox.take_new(1, wait=False)
    written = replace(delivery, url="https://a.example/", body='{"a": 1}', failures=3)
    await outbox.put_off(written, 3600.0)
    assert await outbox.take_due(10) == []
    await outbox.put_off(written, -1.0)
    await redis_client.delete("{q:test}:job:j")
    both = await asyncio.gather(outbox.take_due(10), other.take_due(10))
    assert [delivery for some in both for delivery in some] == [written]
    await outbox.close(written)
    assert await leftovers(redis_client) == set()


async def test_only_what_nobody_holds_is_abandoned(redis_client: redis.Redis) -> None:
    """An entry that was taken and never settled is found by one sender; one that waits for its time is not."""
    for number in range(600):
        await end_job(redis_client, f"j{number}", "https://a.example/")
    outbox = outbox_of(redis_client, abandoned_after_s=0.2)
    await outbox.open()
    taken = await outbox.take_new(600, wait=False)
    for delivery in taken[:-3]:
        await outbox.put_off(delivery, 3600.0)
    found: list[str] = []

    async def all_found() -> bool:
        found.extend(delivery.job_id for delivery in await outbox.take_abandoned(10))
        return len(found) >= 3

    await until(all_found)
    assert sorted(found) == ["j597", "j598", "j599"]
    while not outbox.searched_all:
        assert await outbox.take_abandoned(10) == []
    assert await outbox_of(redis_client, abandoned_after_s=30).take_abandoned(10) == []


async def test_the_dead_are_bounded(redis_client: redis.Redis) -> None:
    """The newest are kept with their reasons, and nothing else of what was given up."""
    for number in range(7):
        await end_job(redis_client, f"j{number}", "https://a.example/")
    outbox = outbox_of(redis_client, max_dead=5)
    await outbox.open()
    for delivery in await outbox.take_new(7, wait=False):
        await outbox.bury(delivery, host="a.example", reason="a.example answered 500")
    dead = [fields for _, fields in await redis_client.xrange(DEAD)]
    assert [fields["job"] for fields in dead] == ["j2", "j3", "j4", "j5", "j6"]
    assert dead[0] == {
        "job": "j2", "state": "succeeded", "tenant": "t", "host": "a.example", "failures": "0",
        "reason": "a.example answered 500",
    }  # fmt: skip
    assert await redis_client.xlen(OUTBOX) == 0
    assert await leftovers(redis_client) == set()
