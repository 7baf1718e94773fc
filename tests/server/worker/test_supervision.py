"""Workers as real processes with an engine that sleeps and fails on demand: no job is lost, none ends twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.queue.client import JobQueue
from server.queue.types import TERMINAL, Cancellation, JobEvent, State, WorkerState
from tests.server.worker.harness import PATIENCE_S, Worker, ended, film_job, reasons, until_step

pytestmark = pytest.mark.anyio

Start = Callable[..., Worker]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _take_away(folder: Path) -> Callable[[], None]:
    """Make a folder useless; what is returned gives it back as it was."""
    away = folder.rename(folder.with_name("away"))
    folder.write_text("in the way")

    def give_back() -> None:
        folder.unlink()
        away.rename(folder)

    return give_back


def assert_stalled(events: list[JobEvent]) -> None:
    """The first attempt was given back for its stall; a busy machine may have held up the one after it as well."""
    lost = [event.data for event in events if event.type == "retrying"]
    assert lost[0] == {"reason": "stall", "attempt": 1}
    assert set(reasons(events)) == {"stall"}


async def test_a_batch_is_made_and_stored(queue: JobQueue, start_worker: Start, artifacts: Path) -> None:
    """Jobs of one shape become films together; records name them, and nothing else is left in the folder."""
    for number in range(3):
        await queue.enqueue(film_job(f"j{number}", seed=number))
    start_worker(max_batch=4)
    starts = set()
    for number in range(3):
        record, events = await ended(queue, f"j{number}")
        assert record.state is State.SUCCEEDED
        assert record.artifact == f"j{number}/1.mp4"
        starts.add(record.started_at)
        assert record.facts is not None
        assert record.facts["seed"] == number
        assert [event.type for event in events if event.type != "progress"] == ["queued", "running", "succeeded"]
    assert len(starts) == 1
    assert _files(artifacts) == {f"j{number}/1.mp4" for number in range(3)}


async def test_a_killed_child_is_reported_at_once(queue: JobQueue, start_worker: Start) -> None:
    """The job of a child killed in the middle is given back by the supervisor, not by the end of its lease."""
    await queue.enqueue(film_job("j", steps=20))
    worker = start_worker()
    await until_step(queue, "j")
    worker.child.kill()
    record, events = await ended(queue, "j")
    assert record.state is State.SUCCEEDED
    assert record.artifact == "j/2.mp4"
    assert reasons(events) == ["crash"]


async def test_a_poisonous_job_ends_alone(queue: JobQueue, start_worker: Start) -> None:
    """A job that kills every child ends after three attempts; its mate of the first batch is made."""
    await queue.enqueue(film_job("bad", "crash"))
    await queue.enqueue(film_job("good"))
    start_worker(max_batch=4)
    bad, bad_events = await ended(queue, "bad")
    good, good_events = await ended(queue, "good")
    assert (bad.state, bad.error_code, bad.attempt) == (State.FAILED, "attempts_exhausted", 3)
    assert reasons(bad_events) == ["crash", "crash"]
    assert (good.state, reasons(good_events)) == (State.SUCCEEDED, ["crash"])


async def test_a_hanging_child_is_killed(queue: JobQueue, start_worker: Start, tmp_path: Path) -> None:
    """A child without progress is killed although its lease is renewed all the while, and the job is tried again."""
    await queue.enqueue(film_job("j", f"hang@{tmp_path / 'hung'}"))
    start_worker(stall_floor=0.6)
    record, events = await ended(queue, "j")
    assert record.state is State.SUCCEEDED
    assert_stalled(events)


async def test_a_frozen_child_is_killed(queue: JobQueue, start_worker: Start) -> None:
    """The same for a process that is stopped from outside."""
    await queue.enqueue(film_job("j", steps=20))
    worker = start_worker(stall_floor=0.6)
    await until_step(queue, "j")
    frozen = worker.child
    frozen.suspend()
    record, events = await ended(queue, "j")
    assert record.state is State.SUCCEEDED
    assert_stalled(events)
    assert not frozen.is_running()


@pytest.mark.parametrize(
    ("wish", "code"),
    [("oom", "out_of_memory"), ("error", "engine_error"), ("invalid", "invalid_request")],
)
async def test_an_error_is_final_and_the_child_lives(
    queue: JobQueue, start_worker: Start, wish: str, code: str
) -> None:
    """What would fail again is not attempted again, tells clients no secrets, and costs no mate and no child."""
    await queue.enqueue(film_job("bad", wish))
    await queue.enqueue(film_job("mate"))
    worker = start_worker(max_batch=2)
    await until_step(queue, "mate")
    pid = worker.child.pid
    bad, _ = await ended(queue, "bad")
    mate, _ = await ended(queue, "mate")
    assert (bad.state, bad.error_code, bad.attempt) == (State.FAILED, code, 1)
    assert bad.error_message is not None
    assert "secret" not in bad.error_message
    assert ".py" not in bad.error_message
    assert (mate.state, mate.attempt) == (State.SUCCEEDED, 1)
    assert worker.child.pid == pid


async def test_running_out_of_memory_is_tried_once_more(queue: JobQueue, start_worker: Start, tmp_path: Path) -> None:
    """A film that fits at the second try is made within its attempt."""
    await queue.enqueue(film_job("j", f"oom@{tmp_path / 'full'}"))
    start_worker()
    record, _ = await ended(queue, "j")
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)


async def test_a_refusing_disk_costs_one_attempt_not_the_queue(
    queue: JobQueue, start_worker: Start, artifacts: Path
) -> None:
    """What cannot be stored is given back; nothing more is taken until it can be, then everything is made."""
    worker = start_worker()
    worker.until_logged("is ready")
    give_back = _take_away(artifacts)
    for job_id in ("first", "second"):
        await queue.enqueue(film_job(job_id))
    worker.until_logged("no job is taken")
    await asyncio.sleep(0.5)  # until that is announced
    assert [notice.state for notice in await queue.workers()] == [WorkerState.BLOCKED]
    untouched = await queue.get("second")
    assert untouched is not None
    assert (untouched.state, untouched.attempt) == (State.QUEUED, 0)
    give_back()
    first, events = await ended(queue, "first")
    second, _ = await ended(queue, "second")
    assert (first.state, first.attempt, reasons(events)) == (State.SUCCEEDED, 2, ["storage"])
    assert (second.state, second.attempt) == (State.SUCCEEDED, 1)
    assert _files(artifacts) == {"first/2.mp4", "second/1.mp4"}


async def test_cancelling_a_running_job(queue: JobQueue, start_worker: Start, artifacts: Path) -> None:
    """It ends cancelled between two steps, its mate is made, nothing of it is left, and the child goes on."""
    await queue.enqueue(film_job("stop", steps=60))
    await queue.enqueue(film_job("go", steps=60))
    worker = start_worker(max_batch=2)
    await until_step(queue, "stop")
    pid = worker.child.pid
    assert await queue.cancel("stop") is Cancellation.REQUESTED
    stopped, _ = await ended(queue, "stop")
    made, _ = await ended(queue, "go")
    assert (stopped.state, stopped.progress is not None and stopped.progress.step < 60) == (State.CANCELLED, True)
    assert made.state is State.SUCCEEDED
    assert worker.child.pid == pid
    assert _files(artifacts) == {"go/1.mp4"}


async def test_a_child_that_cannot_be_started_just_now(queue: JobQueue, start_worker: Start) -> None:
    """A worker without a descriptor or a process to spare waits until it has one, and makes the film."""
    await queue.enqueue(film_job("j", steps=20))
    worker = start_worker()
    await until_step(queue, "j")
    supervisor = psutil.Process(worker.process.pid)
    limits = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    # The standard three are open for sure, so that nothing more can be.
    supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
    worker.child.kill()
    await asyncio.to_thread(worker.until_logged, "the engine process cannot be started")
    supervisor.rlimit(psutil.RLIMIT_NOFILE, limits)
    record, _ = await ended(queue, "j")
    assert record.state is State.SUCCEEDED


async def test_a_drain_finishes_what_runs(queue: JobQueue, start_worker: Start) -> None:
    """After SIGTERM the running film is made, no other is begun, and the worker ends well and is forgotten."""
    await queue.enqueue(film_job("running", steps=20))
    await queue.enqueue(film_job("waiting"))
    worker = start_worker(drain_timeout=PATIENCE_S)
    await until_step(queue, "running")
    worker.signal(signal.SIGTERM)
    record, _ = await ended(queue, "running")
    code, _ = await asyncio.to_thread(worker.wait)
    waiting = await queue.get("waiting")
    assert (record.state, code) == (State.SUCCEEDED, 0)
    assert waiting is not None
    assert (waiting.state, waiting.attempt) == (State.QUEUED, 0)
    assert await queue.workers() == []


@pytest.mark.parametrize("how", ["timeout", "second signal"])
async def test_a_drain_that_cannot_wait_costs_nothing(queue: JobQueue, start_worker: Start, how: str) -> None:
    """At the drain's time-out, or at a second SIGTERM, the job goes back unpenalised and another worker makes it."""
    await queue.enqueue(film_job("j", steps=400))
    worker = start_worker(drain_timeout=0.2 if how == "timeout" else 3600)
    await until_step(queue, "j")
    child = worker.child
    worker.signal(signal.SIGTERM)
    if how == "second signal":
        await asyncio.to_thread(worker.until_logged, "draining")
        worker.signal(signal.SIGTERM)
    code, _ = await asyncio.to_thread(worker.wait)
    assert code == 0
    assert not child.is_running()
    record = await queue.get("j")
    assert record is not None
    assert (record.state, record.error_code) == (State.QUEUED, None)
    assert await queue.cancel("j") is Cancellation.CANCELLED
    _, events = await ended(queue, "j")
    assert reasons(events) == ["drain"]


async def test_a_killed_supervisor_takes_its_child_along(queue: JobQueue, start_worker: Start) -> None:
    """kill -9 of the supervisor ends its child, even a frozen one; another worker makes the film after the lease."""
    await queue.enqueue(film_job("j", steps=20))
    victim = start_worker()
    await until_step(queue, "j")
    child = victim.child
    child.suspend()
    victim.process.kill()
    await asyncio.to_thread(psutil.wait_procs, [child], PATIENCE_S)
    assert not child.is_running()
    start_worker()
    record, events = await ended(queue, "j")
    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert reasons(events) == ["lease_expired"]


async def test_a_zombie_supervisors_film_is_refused(queue: JobQueue, start_worker: Start, artifacts: Path) -> None:
    """A supervisor frozen past its lease wakes when another has made the film: one outcome counts, one film is left."""
    await queue.enqueue(film_job("j", steps=20))
    zombie = start_worker()
    await until_step(queue, "j")
    zombie.signal(signal.SIGSTOP)
    other = start_worker()
    record, _ = await ended(queue, "j")
    assert (record.state, record.artifact) == (State.SUCCEEDED, "j/2.mp4")
    zombie.signal(signal.SIGCONT)
    zombie.signal(signal.SIGTERM)
    code, log = await asyncio.to_thread(zombie.wait)
    assert code == 0
    assert "job j attempt 1 is no longer ours" in log or "refused as stale" in log
    _, events = await ended(queue, "j")
    assert [event.type for event in events if event.type in TERMINAL] == ["succeeded"]
    assert _files(artifacts) == {"j/2.mp4"}
    other.signal(signal.SIGTERM)
    assert (await asyncio.to_thread(other.wait))[0] == 0


async def test_a_model_that_cannot_be_loaded_ends_the_worker(start_worker: Start) -> None:
    """One sentence and exit code 1, no endless restarts."""
    worker = start_worker(model="broken")
    code, log = await asyncio.to_thread(worker.wait)
    assert code == 1
    assert log.splitlines()[-1] == (
        "worker: model 'broken' cannot be loaded: the folder broken holds no model_index.json"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"worker_id": "a b"}, "worker id 'a b' is not a name"),
        ({"max_batch": 0}, "--max-batch is 0; use 1 to 64"),
        ({"lease": 0.5}, "--lease is 0.5 seconds; use 1 to 3600"),
        ({"pool": "../x"}, "pool '../x' is not a name"),
    ],
)
async def test_a_wrong_setting_ends_the_worker(start_worker: Start, options: dict[str, str], sentence: str) -> None:
    """One sentence that names the setting."""
    code, log = await asyncio.to_thread(start_worker(**options).wait)
    assert code == 1
    assert log.splitlines()[-1].startswith(f"worker: {sentence}")


async def test_prompts_are_not_logged(queue: JobQueue, start_worker: Start) -> None:
    """The log tells a prompt's hash and length; each record is one line, whatever the prompt."""
    prompt = "a private wish\nINFO forged line \x1b[2J"
    await queue.enqueue(film_job("j", prompt))
    worker = start_worker()
    await ended(queue, "j")
    worker.signal(signal.SIGTERM)
    _, log = await asyncio.to_thread(worker.wait)
    assert f"of {len(prompt)} characters" in log
    assert "private" not in log
    assert "forged" not in log
