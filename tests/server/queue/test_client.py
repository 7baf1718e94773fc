"""The client around the library: loading it, workers' notices, and what the gateway's process may import."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import redis.asyncio as redis

from engines.types import GenerationRequest, VideoSpec
from server.queue.client import JobQueue
from server.queue.library import library_text
from server.queue.request_document import from_document, to_document
from server.queue.types import WorkerNotice, WorkerState
from tests.server.queue.jobs import PREFIX, new_job

NOTICE = WorkerNotice(
    worker_id="w1", model="m", state=WorkerState.READY, max_batch=4, cost_model={"fixed": 0.2, "shapes": {"a": 1.0}}
)


@pytest.mark.anyio
async def test_install_loads_what_differs(queue: JobQueue, redis_client: redis.Redis) -> None:
    """An older library of the same name is replaced, this very one is left alone."""
    older = "#!lua name=rushes\nredis.register_function('rushes_old', function() return 1 end)"
    await redis_client.function_load(older, replace=True)
    await queue.install()
    await queue.install()
    (library,) = await redis_client.function_list(library="rushes", withcode=True)
    assert library_text() in library
    assert not any("rushes_old" in str(part) for part in library)


@pytest.mark.anyio
async def test_a_server_that_lost_the_library_is_given_it_again(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A Redis restarted without its data serves the next call as if nothing had happened."""
    await redis_client.function_flush()
    await queue.enqueue(new_job("a"))
    assert (await queue.depth()).queued == 1


@pytest.mark.anyio
async def test_pools_are_apart(queue: JobQueue, redis_client: redis.Redis) -> None:
    """Pools share a server and nothing else."""
    other = JobQueue(redis_client, pool="other")
    await other.enqueue(new_job("a"))
    assert await queue.get("a") is None
    assert await queue.lease("w") == []
    assert len(await other.lease("w")) == 1


@pytest.mark.anyio
async def test_workers_are_known_while_they_say_so(queue: JobQueue, redis_client: redis.Redis) -> None:
    """A notice is read back as it was, replaced by the next, and gone when its time is over or the worker retires."""
    await queue.announce_worker(NOTICE)
    second = replace(NOTICE, worker_id="w2", state=WorkerState.LOADING)
    await queue.announce_worker(second)
    await queue.announce_worker(replace(second, state=WorkerState.DRAINING))
    assert await queue.workers() == [NOTICE, replace(second, state=WorkerState.DRAINING)]
    assert 0 < await redis_client.pttl(f"{PREFIX}:worker:w1") <= 6000
    await redis_client.delete(f"{PREFIX}:worker:w1")  # as its time-out does
    await queue.retire_worker("w2")
    assert await queue.workers() == []
    assert not await redis_client.exists(f"{PREFIX}:workers")


@pytest.mark.anyio
async def test_arrivals_wake(queue: JobQueue) -> None:
    """What can be leased wakes who waits for it, a job given back included, and is told once."""
    seen = await queue.wait_for_arrival("0-0")
    assert seen == "0-0"
    await queue.enqueue(new_job("a"))
    woken = await queue.wait_for_arrival(seen)
    assert woken != seen
    assert await queue.wait_for_arrival(woken) == woken


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.anyio
async def test_impossible_weights_are_refused(queue: JobQueue, weight: float) -> None:
    """A weight that would break the arithmetic of fairness never reaches Redis."""
    with pytest.raises(ValueError, match="out of range"):
        await queue.set_weights({"t": weight})


def test_a_request_survives_its_document() -> None:
    """A request and its format come back from the document as they were; anything else is a clear error."""
    request = GenerationRequest(
        request_id="j",
        prompt="a red ball\n\u2603",
        spec=VideoSpec(width=64, height=64, num_frames=17, fps=8),
        num_inference_steps=8,
        guidance_scale=4.0,
        flow_shift=3.0,
        sampler="unipc",
        seed=2**63 - 1,
    )
    document = to_document(request, "webm")
    assert from_document(document) == (request, "webm")
    for broken in ({}, document | {"format": "exe"}, document | {"generation": {"prompt": 1}}, {"generation": 3}):
        with pytest.raises(ValueError, match=r"request document|video format"):
            from_document(broken)


def test_queue_and_artifacts_import_no_torch() -> None:
    """The gateway's half of the server stays light."""
    code = (
        "import sys, server.queue.client, server.queue.connection, server.queue.request_document, "
        "server.artifacts.filesystem, server.artifacts.sweeper, server.worker.supervisor; "
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
