"""Bounds on open calls for each receiver and each tenant."""

from __future__ import annotations

import pytest

from server.webhooks.lanes import Lanes


def test_a_receiver_has_so_many_calls_and_the_rest_take_turns() -> None:
    """Beyond the bound every asker gets a later turn, at the pace at which calls end."""
    lanes = Lanes(per_host=2)
    assert [lanes.enter("a", "t", now=0.0) for _ in range(2)] == [0.0, 0.0]
    assert [lanes.enter("a", "t", now=0.0) for _ in range(3)] == pytest.approx([0.05, 0.10, 0.15])
    lanes.leave("a", "t", answered=True, took_s=4.0, now=4.0)
    assert lanes.enter("a", "t", now=4.0) == 0.0
    assert lanes.enter("a", "t", now=4.0) == 2.0
    assert lanes.enter("b", "u", now=4.0) == 0.0


def test_a_silent_receiver_gets_one_call_until_it_answers() -> None:
    """Dead receivers hold few calls; an answer, be it an error, restores the bound."""
    lanes = Lanes(per_host=3)
    lanes.enter("a", "t", now=0.0)
    lanes.leave("a", "t", answered=False, took_s=10.0, now=10.0)
    assert lanes.enter("a", "t", now=10.0) == 0.0
    assert lanes.enter("a", "t", now=10.0) == 10.0
    lanes.leave("a", "t", answered=True, took_s=0.1, now=11.0)
    assert [lanes.enter("a", "t", now=11.0) for _ in range(3)] == [0.0] * 3


def test_a_tenant_of_many_receivers_is_bounded_too() -> None:
    """Ever new names do not bring ever more calls, and other tenants have theirs."""
    lanes = Lanes(per_host=2, per_tenant=5)
    waits = [lanes.enter(f"{number}.example", "t", now=0.0) for number in range(8)]
    assert waits.count(0.0) == 5
    assert lanes.enter("8.example", "u", now=0.0) == 0.0


def test_no_wait_is_longer_than_five_minutes() -> None:
    """A receiver that comes back after a long absence is not made to wait for turns that were given out meanwhile."""
    lanes = Lanes(per_host=1)
    lanes.enter("a", "t", now=0.0)
    assert max(lanes.enter("a", "t", now=0.0) for _ in range(10_000)) == 300.0


def test_receivers_are_forgotten() -> None:
    """A hundred thousand receivers later there is no trace of the first; those with open calls are kept."""
    lanes = Lanes()
    lanes.enter("kept", "t", now=0.0)
    for number in range(100_000):
        lanes.enter(f"{number}.example", "t", now=0.0)
        lanes.leave(f"{number}.example", "t", answered=False, took_s=1.0, now=0.0)
    assert len(lanes._hosts) <= 1025
    lanes.leave("kept", "t", answered=True, took_s=1.0, now=0.0)
