"""The wire: what is sent arrives as it was, and anything else is an error."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.worker.channel import ChildChannel, SupervisorChannel
from server.worker.wire import (
    MAX_MESSAGE_BYTES,
    BatchItem,
    CancelJob,
    JobCancelled,
    JobDone,
    JobFailed,
    LoadFailed,
    Message,
    Ready,
    RunBatch,
    StageReached,
    StepDone,
    WireError,
    batch_items,
    body_length,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    RunBatch(items=[{"job_id": "j", "request": {"prompt": "\u2603\n"}, "path": "/a/1.part"}]),
    CancelJob(job_id="j"),
    Ready(),
    LoadFailed(message="no such folder"),
    StageReached(job_id="j", stage="encode"),
    StepDone(job_id="j", step=1, num_steps=8),
    JobDone(job_id="j", facts={"seed": 2**63 - 1}, cost_model={"fixed": 0.1}),
    JobCancelled(job_id="j"),
    JobFailed(job_id="j", code="engine_error", message="it failed"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives(message: Message) -> None:
    """What is encoded is decoded to an equal message."""
    data = encode(message)
    assert body_length(data[:4]) == len(data) - 4
    assert decode(data[4:]) == message


STEP = {"tag": "StepDone", "job_id": "j", "step": 1, "num_steps": 8}


@pytest.mark.parametrize(
    "content",
    [
        None, 3, [], {}, "StepDone", {"tag": "Evil"}, {"tag": ["StepDone"]}, STEP | {"more": 1},
        {name: value for name, value in STEP.items() if name != "step"}, STEP | {"step": "1"}, STEP | {"step": True},
        STEP | {"step": 1.5}, STEP | {"job_id": None}, {"tag": "RunBatch", "items": {}},
    ],
)  # fmt: skip
def test_a_malformed_message_is_an_error(content: Any) -> None:
    """Unknown tags, missing or surplus fields and fields of another type are refused."""
    with pytest.raises(WireError):
        decode(json.dumps(content).encode())


@given(st.binary(max_size=200))
def test_noise_is_an_error(body: bytes) -> None:
    """Arbitrary bytes are refused with the one error there is."""
    with pytest.raises(WireError):
        decode(body)


def test_deep_nesting_is_an_error() -> None:
    """JSON that exhausts the parser is refused like any other noise."""
    with pytest.raises(WireError):
        decode(b"[" * 100_000)


@pytest.mark.parametrize("item", [{}, {"job_id": "j", "request": {}, "path": 3}, {"job_id": "j", "request": {}}])
def test_a_malformed_item_is_an_error(item: dict[str, Any]) -> None:
    """The jobs of a batch are checked like messages."""
    with pytest.raises(WireError):
        batch_items(RunBatch(items=[item]))


def test_items_are_typed() -> None:
    """The jobs of a batch come out as they went in."""
    item = BatchItem(job_id="j", request={"a": 1}, path="/p")
    assert batch_items(RunBatch(items=[{"job_id": "j", "request": {"a": 1}, "path": "/p"}])) == [item]


def test_an_oversized_message_is_neither_sent_nor_read() -> None:
    """The limit holds on both sides, before anything is allocated."""
    with pytest.raises(WireError, match="exceeds the limit"):
        encode(LoadFailed(message="x" * MAX_MESSAGE_BYTES))
    with pytest.raises(WireError, match="exceeds the limit"):
        body_length(struct.pack(">I", MAX_MESSAGE_BYTES + 1))


DATA = encode(StepDone(job_id="j", step=1, num_steps=8))


@pytest.mark.anyio
@pytest.mark.parametrize("length", range(1, len(DATA)))
async def test_the_supervisor_sees_a_torn_message(length: int) -> None:
    """A child that dies in the middle of a message, at any byte, is told from one that ended between two."""
    ours, theirs = socket.socketpair()
    channel = await SupervisorChannel.over(ours)
    theirs.sendall(DATA + DATA[:length])
    theirs.close()
    assert await channel.receive() == decode(DATA[4:])
    with pytest.raises(WireError, match="in the middle"):
        await channel.receive()
    channel.close()


@pytest.mark.anyio
async def test_the_supervisor_sees_the_end() -> None:
    """A child that closed, or that was killed with our orders unread, is a plain end, and orders to it are no error."""
    for unread in (False, True):
        ours, theirs = socket.socketpair()
        channel = await SupervisorChannel.over(ours)
        if unread:
            await channel.send(CancelJob(job_id="j"))
        theirs.close()
        assert await channel.receive() is None
        for _ in range(3):
            await channel.send(CancelJob(job_id="j"))
        channel.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, len(DATA) - 1])
def test_the_child_sees_the_end(length: int) -> None:
    """The same at the child's end of the socket."""
    ours, theirs = socket.socketpair()
    channel = ChildChannel(theirs)
    ours.sendall(DATA + DATA[:length])
    ours.close()
    assert channel.receive() == decode(DATA[4:])
    if length:
        with pytest.raises(WireError, match="in the middle"):
            channel.receive()
    else:
        assert channel.receive() is None
    channel.close()
