"""Whatever part of the server is killed, films arrive, and arrive the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.live import SERVE, Stack, clean_environment

# A second or more on the tiny model, with several reports of progress on the way.
LONG: dict[str, Any] = {"prompt": "a red ball", "seed": 4, "width": 96, "height": 96, "num_frames": 17}
LONG |= {"num_inference_steps": 120}


@pytest.fixture(scope="session")
def uninterrupted(shared_stack: Stack) -> bytes:
    """The long film, made in peace."""
    return shared_stack.video(shared_stack.finish(shared_stack.post(LONG)["id"])["id"])


def kill(processes: list[psutil.Process]) -> None:
    assert processes, "nothing to kill"
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)


def test_killed_in_the_middle_of_a_film(stack: Stack, uninterrupted: bytes) -> None:
    """With the engine's process killed, then its supervisor, then both, the very same film arrives."""
    for victims in (["server.worker.runner"], ["server.worker"], ["server.worker.runner", "server.worker"]):
        stack.until_ready()
        job = stack.post(LONG)
        killed = False
        for _, kind, data in stack.events(job["id"]):
            if not killed and kind == "progress" and data["step"] >= 1:
                for name in victims:
                    kill(stack.processes(name))
                killed = True
        assert killed
        assert kind == "succeeded", victims
        done = stack.job(job["id"])
        assert done["attempt"] == 2, victims
        assert stack.video(job["id"]) == uninterrupted, victims


def test_the_queue_killed_in_the_middle_of_a_film(stack: Stack, uninterrupted: bytes) -> None:
    """The worker goes on, the stream goes on, the result is accepted when the queue is back."""
    job, waiting = stack.post(LONG), stack.post(LONG)
    killed = False
    for _, kind, data in stack.events(job["id"]):
        if not killed and kind == "progress" and data["step"] >= 1:
            kill(stack.processes("valkey-server"))
            killed = True
    assert killed
    assert kind == "succeeded"
    assert stack.video(job["id"]) == uninterrupted
    assert stack.finish(waiting["id"])["state"] == "succeeded"


def test_the_queue_silent_for_a_while(stack: Stack) -> None:
    """As on a disk that stalls: who heeds Retry-After, with a key on what is posted, gets the one film asked for."""
    (queue,) = stack.processes("valkey-server")
    queue.suspend()
    waker = threading.Timer(2.0, queue.resume)
    waker.start()
    try:
        job = stack.post({"prompt": "a ball"})
    finally:
        waker.join()
    assert stack.finish(job["id"])["state"] == "succeeded"


def test_the_gateway_killed(stack: Stack) -> None:
    """Its listening socket outlives it, so that clients wait a moment instead of being refused."""
    job = stack.post({"prompt": "a ball"})
    kill(stack.processes("server.api"))
    stack.reconnect()
    assert stack.finish(job["id"])["state"] == "succeeded"


@pytest.mark.long
def test_restarts_keep_jobs_and_films(patient_model: Path, tmp_path: Path) -> None:
    """After SIGTERM, and after SIGKILL, the next start serves the finished film and makes the waiting ones.

    SIGKILL of `rushes serve` takes gateway, worker, engine and queue along.
    """
    stack = Stack(model=patient_model, state_dir=tmp_path, max_batch="1", drain_seconds="0")
    done = stack.finish(stack.post({"prompt": "a ball", "seed": 1})["id"])
    film = stack.video(done["id"])
    jobs = [stack.post(LONG) for _ in range(4)]
    assert stack.stop() == 0

    stack = Stack(model=patient_model, state_dir=tmp_path, max_batch="1")
    assert stack.video(done["id"]) == film
    assert stack.finish(jobs[0]["id"])["state"] == "succeeded"
    family = psutil.Process(stack.process.pid).children(recursive=True)
    assert len(family) >= 4
    assert stack.stop(signal.SIGKILL) == -signal.SIGKILL
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []

    stack = Stack(model=patient_model, state_dir=tmp_path, max_batch="1")
    try:
        ended = [stack.finish(job["id"]) for job in jobs]
        assert [job["state"] for job in ended] == ["succeeded"] * 4
        assert {stack.video(job["id"]) for job in ended} == {stack.video(jobs[0]["id"])}
    finally:
        assert stack.stop(signal.SIGINT) == 0


def serve(state_dir: Path, model: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVE, "--model", str(model), "--state-dir", str(state_dir), *arguments],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_second_stack_on_the_same_folder(stack: Stack, patient_model: Path) -> None:
    """It is refused in one sentence that names the first one's process."""
    done = serve(stack.state_dir, patient_model, "--port", "0")
    assert done.returncode == 2
    assert f"process {stack.process.pid}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_in_use(tmp_path: Path, patient_model: Path) -> None:
    """It is told in one sentence, before anything slow is begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve(tmp_path, patient_model, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "already in use" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "valkey").exists()


def test_a_redis_that_does_not_answer(tmp_path: Path, patient_model: Path) -> None:
    """A REDIS_URL that leads nowhere is told at the start, without the password it holds."""
    url = f"unix://:hunter2@{tmp_path}/nobody.sock"
    done = serve(tmp_path, patient_model, "--port", "0", REDIS_URL=url)
    assert done.returncode == 2
    assert "REDIS_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_model_that_cannot_be_loaded(tmp_path: Path, patient_model: Path) -> None:
    """A pickle in place of the weights ends the start with the reason; nothing is left running."""
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(patient_model, broken)
    for weights in (broken / "transformer").glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    done = serve(tmp_path / "state", broken, "--port", "0")
    assert done.returncode == 2
    assert "pickle" in done.stderr
    assert "a worker cannot start" in done.stderr.splitlines()[-1]
    names = [" ".join(process.cmdline()) for process in psutil.process_iter() if process.ppid() in (1, os.getpid())]
    assert not [name for name in names if str(tmp_path) in name]


def test_a_redis_of_ones_own(redis_url: str, patient_model: Path, tmp_path: Path) -> None:
    """With REDIS_URL no Valkey is started, and films are made all the same."""
    stack = Stack(model=patient_model, state_dir=tmp_path, redis_url=redis_url)
    try:
        assert stack.processes("valkey-server") == []
        assert stack.finish(stack.post({"prompt": "a ball"})["id"])["state"] == "succeeded"
        arguments = [
            " ".join(process.cmdline()) for process in psutil.Process(stack.process.pid).children(recursive=True)
        ]
        assert not [line for line in arguments if "unix://" in line]
    finally:
        assert stack.stop() == 0
