"""The server's processes as tests start, speak to and stop them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.tied_process import tied

ROOT = Path(__file__).resolve().parents[2]
START_S = 90.0
SERVE = (sys.executable, "-m", "server.cli", "serve")
JSON = {"Content-Type": "application/json"}


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without any setting of rushes, one engine thread, and `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUSHES_", "REDIS_URL"))}
    return kept | {"OMP_NUM_THREADS": "1", "RUSHES_THREADS": "1"} | variables


class Gateway:
    """`python -m server.api` on a free port of loopback, without any worker."""

    def __init__(self, *, redis_url: str, model: Path, state_dir: Path, **settings: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state_dir / f"gateway-{self.port}.log"
        named = {"model": str(model), "state_dir": str(state_dir)} | settings
        variables = {f"RUSHES_{name.upper()}": text for name, text in named.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                tied([sys.executable, "-m", "server.api", "--fd", str(listener.fileno())], death_signal=signal.SIGKILL),
                cwd=ROOT,
                env=clean_environment(REDIS_URL=redis_url, **variables),
                pass_fds=(listener.fileno(),),
                stderr=log,
            )
        listener.close()
        self.client = httpx.Client(base_url=self.url, timeout=START_S)

    def post(self, document: Any, **headers: str) -> httpx.Response:
        """POST /generate."""
        return self.client.post("/generate", content=json.dumps(document), headers=JSON | headers)

    def stop(self) -> int:
        """End it; its exit code."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


class PatientTransport(httpx.HTTPTransport):
    """Comes back when the server asks for it, as its documentation tells clients to.

    A busy disk may keep the queue silent for longer than the gateway waits for it; whoever is told 503 with a
    Retry-After asks again, if asking twice does no harm. `tests/server/api` holds the refusals themselves.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + START_S
        while True:
            answer = super().handle_request(request)
            repeatable = request.method == "GET" or "idempotency-key" in request.headers
            if answer.status_code != 503 or not repeatable or time.monotonic() > deadline:
                return answer
            content = answer.read()
            answer.close()
            if b"queue_unavailable" not in content:
                return httpx.Response(503, headers=answer.headers, content=content)
            time.sleep(float(answer.headers["retry-after"]))


class Stack:
    """`rushes serve` on a free port; the constructor returns when it has said that it is ready."""

    def __init__(self, *, model: Path, state_dir: Path, arguments: tuple[str, ...] = (), **settings: str) -> None:
        self.state_dir = state_dir
        state_dir.mkdir(parents=True, exist_ok=True)
        self.log = state_dir / "serve.log"
        self.said: list[str] = []
        command = [*SERVE, "--port", "0", "--model", str(model), "--state-dir", str(state_dir), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # A test run that is killed takes its servers along.
                tied(command, death_signal=signal.SIGKILL),
                cwd=ROOT,
                env=clean_environment(**{f"RUSHES_{name.upper()}": text for name, text in settings.items()}),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.url = self._until_ready()
        self.client = self._connected()

    def post(self, document: Any, **headers: str) -> dict[str, Any]:
        """POST /generate, which must be accepted; the job. Its key lets it be sent again."""
        own = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self.client.post("/generate", content=json.dumps(document), headers=JSON | own | headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, job_id: str) -> dict[str, Any]:
        """GET /jobs/{id}."""
        return self.client.get(f"/jobs/{job_id}").json()

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The job's events as (id, type, data), until the server ends the stream."""
        yield from read_events(self.client, f"/jobs/{job_id}/events", after=after)

    def finish(self, job_id: str) -> dict[str, Any]:
        """Wait for the job's end; the job."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    def video(self, job_id: str) -> bytes:
        """The finished file."""
        answer = self.client.get(f"/jobs/{job_id}/video")
        assert answer.status_code == 200, answer.text
        return answer.content

    def reconnect(self) -> None:
        """Forget connections to a gateway that is gone."""
        self.client.close()
        self.client = self._connected()

    def _connected(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30.0, transport=PatientTransport())

    def until_ready(self) -> None:
        """Wait until a worker takes jobs, whatever has just been done to the stack."""
        deadline = time.monotonic() + START_S
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, self.client.get("/readyz").text
            time.sleep(0.05)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those below the stack whose command line holds each word as an argument, or as its program's name."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            arguments = process.cmdline()
            if all(word in arguments or (arguments and arguments[0].endswith(f"/{word}")) for word in words):
                found.append(process)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(60)

    def _until_ready(self) -> str:
        assert self.process.stdout is not None
        timer = threading.Timer(START_S, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith("ready: "):
                timer.cancel()
                threading.Thread(target=self._listen, daemon=True).start()
                return line.split()[-1]
        timer.cancel()
        raise AssertionError(f"the stack ended before it was ready: {self.said}\n{self.log.read_text()[-3000:]}")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            self.said.extend(line.rstrip("\n") for line in self.process.stdout)


def read_events(
    client: httpx.Client, path: str, *, after: str | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Server-sent events as (id, type, data)."""
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", path, headers=headers, timeout=START_S) as answer:
        assert answer.status_code in (200, 204), answer.read()
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif "id" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}
