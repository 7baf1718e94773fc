"""The library against the transition table: each state with each action."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as redis

from server.queue.client import JobQueue
from server.queue.diagram import transitions_mermaid
from server.queue.library import LIBRARY_PATH
from server.queue.types import (
    TERMINAL,
    TRANSITIONS,
    Accepted,
    Action,
    Cancellation,
    Outcome,
    ReleaseReason,
    Renewal,
    State,
)
from tests.server.queue.jobs import PREFIX, end_lease, new_job

pytestmark = pytest.mark.anyio

Act = Callable[[JobQueue, redis.Redis], Awaitable[Any]]
STATES = [None, *State]


def _finish(state: State) -> Act:
    return lambda queue, _: queue.finish("j", 1, Outcome(state=state))


async def _reap(queue: JobQueue, client: redis.Redis) -> Any:
    await end_lease(client, "j")
    return await queue.reap()


# What each action does to job j at its first attempt, and what it answers when it is refused.
ACTS: dict[Action, tuple[Act, Any]] = {
    Action.ENQUEUE: (lambda queue, _: queue.enqueue(new_job("j")), Accepted(job_id="j", replayed=True)),
    Action.LEASE: (lambda queue, _: queue.lease("w"), []),
    Action.RENEW: (lambda queue, _: queue.renew("j", 1), Renewal.LOST),
    Action.FINISH_SUCCEEDED: (_finish(State.SUCCEEDED), False),
    Action.FINISH_FAILED: (_finish(State.FAILED), False),
    Action.FINISH_CANCELLED: (_finish(State.CANCELLED), False),
    Action.RELEASE: (lambda queue, _: queue.release("j", 1, ReleaseReason.CRASH, worker_id="w"), False),
    Action.CANCEL: (lambda queue, _: queue.cancel("j"), None),
    Action.REAP: (_reap, []),
}


async def _bring_to(queue: JobQueue, state: State | None) -> None:
    if state is None:
        return
    await queue.enqueue(new_job("j"))
    if state is not State.QUEUED:
        await queue.lease("w")
    # Ended by a release or a cancellation, so that a later finish is nobody's repetition.
    if state is State.CANCELLED:
        await queue.cancel("j")
        await queue.release("j", 1, ReleaseReason.DRAIN, worker_id="w")
    if state in {State.SUCCEEDED, State.FAILED}:
        await queue.finish("j", 1, Outcome(state=state))


async def _state(queue: JobQueue) -> State | None:
    record = await queue.get("j")
    return record.state if record else None


def test_every_action_has_an_act() -> None:
    """No action of the table is left untested."""
    assert ACTS.keys() == set(Action)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("state", STATES)
async def test_each_pair_leads_where_the_table_says(
    queue: JobQueue, redis_client: redis.Redis, state: State | None, action: Action
) -> None:
    """An action of the table leads to one of its states; any other is refused and changes nothing, events included."""
    await _bring_to(queue, state)
    assert await _state(queue) is state
    events = await redis_client.xlen(f"{PREFIX}:events:j")
    act, refusal = ACTS[action]
    answer = await act(queue, redis_client)
    allowed = TRANSITIONS.get((state, action))
    if allowed is not None:
        assert await _state(queue) in allowed
        assert answer != refusal
        return
    assert await _state(queue) is state
    assert await redis_client.xlen(f"{PREFIX}:events:j") == events
    if action is Action.CANCEL:
        assert answer is (Cancellation.UNKNOWN if state is None else Cancellation.TERMINAL)
    elif not _repeats_its_own_finish(state, action):
        assert answer == refusal


def _repeats_its_own_finish(state: State | None, action: Action) -> bool:
    # Told yes again, because the first answer may have been lost; that nothing changed was checked before.
    return (state, action) in {
        (State.SUCCEEDED, Action.FINISH_SUCCEEDED),
        (State.FAILED, Action.FINISH_FAILED),
    }


@pytest.mark.parametrize("action", [Action.RELEASE, Action.REAP])
async def test_each_end_of_an_attempt_is_reached(queue: JobQueue, redis_client: redis.Redis, action: Action) -> None:
    """Giving a job back, and losing it, lead to exactly the states of the table: by attempts left and by cancelling."""
    reached = set()
    for preparation in ("fresh", "cancelled", "spent"):
        await redis_client.flushdb()
        await _bring_to(queue, State.RUNNING)
        if preparation == "cancelled":
            await queue.cancel("j")
        if preparation == "spent":
            await redis_client.hset(f"{PREFIX}:job:j", "failures", "2")
        await ACTS[action][0](queue, redis_client)
        reached.add(await _state(queue))
    assert reached == TRANSITIONS[State.RUNNING, action]


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_finishing_again_is_told_yes_and_does_nothing(
    queue: JobQueue, redis_client: redis.Redis, state: State
) -> None:
    """A worker whose answer was lost may ask again; another attempt, or another outcome, is refused."""
    await _bring_to(queue, State.RUNNING)
    assert await queue.finish("j", 1, Outcome(state=state))
    assert await queue.finish("j", 1, Outcome(state=state))
    other = next(iter(TERMINAL - {state}))
    assert not await queue.finish("j", 1, Outcome(state=other))
    assert not await queue.finish("j", 2, Outcome(state=state))
    events = await redis_client.xrange(f"{PREFIX}:events:j")
    assert [fields["type"] for _, fields in events] == ["queued", "running", state]


def test_the_readme_shows_the_table() -> None:
    """The diagram in the README is the one that the table makes."""
    readme = LIBRARY_PATH.with_name("README.md").read_text()
    assert f"```mermaid\n{transitions_mermaid()}\n```" in readme, "paste the output of python -m server.queue.diagram"
