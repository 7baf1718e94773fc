"""A gateway with keys lets their owners in, on every route, and tells strangers nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi.routing import iter_route_contexts

from server.api.app import create_app
from server.keys.file import add_key, remove_key
from server.settings import load_settings
from tests.server.api.conftest import Keyed, StartGateway, bearer, new_key
from tests.server.api.test_refusals import GOOD, LEAKS, problem
from tests.server.live import JSON, Gateway, read_events

OPEN = {("GET", "/openapi.json"), ("HEAD", "/openapi.json"), ("GET", "/healthz"), ("GET", "/readyz")}


@pytest.fixture
def routes(tiny_wan: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """(method, path) of everything that the application answers to, as the framework itself has it."""
    app = create_app(load_settings(model=str(tiny_wan), state_dir=tmp_path, redis_url="redis://localhost"))
    found = [(method, context.path) for context in iter_route_contexts(app.routes) for method in context.methods or ()]
    assert len(found) > len(OPEN)
    return sorted(found)


def ask(gateway: Gateway, method: str, path: str, job_id: str = "0" * 32, **headers: str) -> httpx.Response:
    """The route, with a job's id and a good body where it takes them."""
    if method == "POST":
        return gateway.client.post(path.format(job_id=job_id), content=json.dumps(GOOD), headers=JSON | headers)
    return gateway.client.request(method, path.format(job_id=job_id), headers=headers)


def strange_keys(key: str) -> list[dict[str, str]]:
    """Headers that hold no key that opens anything."""
    return [
        {},
        *(bearer(text) for text in ("x", key[:-1], key + "x", key.upper(), f"{key} {key}", "é", "a" * 8000)),
        *({"Authorization": text} for text in ("", key, f"Basic {key}", f"Token {key}", f"Bearer\t{key}", "Bearer")),
        {"X-API-Key": ""},
        {"X-API-Key": f"Bearer {key}"},
        {"Cookie": f"key={key}"},
        {"Authorization": "Bearer x", "X-API-Key": key},
    ]


def unauthorized(answer: httpx.Response) -> httpx.Headers:
    """The one answer that a stranger gets; its headers without those that differ for every request."""
    assert answer.status_code == 401, answer.text
    if answer.request.method != "HEAD":
        problem(answer, 401, "unauthorized")
        assert not LEAKS.search(answer.text)
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    return httpx.Headers({n: v for n, v in answer.headers.items() if n not in ("date", "x-request-id")})


def test_every_route_asks_for_a_key(keyed: Keyed, routes: list[tuple[str, str]]) -> None:
    """But for the named ones none does anything for a stranger, and the answer is the same whatever is wrong."""
    assert {route for route in routes if "{" not in route[1]} >= OPEN
    strangers = [{n: v.encode() for n, v in headers.items()} for headers in strange_keys(keyed.studio)]
    told = set()
    for method, path in routes:
        if (method, path) in OPEN:
            continue
        for headers in strangers:
            answer = ask(keyed.gateway, method, path, **headers)  # type: ignore[arg-type]
            told.add((json.dumps(sorted(unauthorized(answer).items())), answer.text if method != "HEAD" else ""))
    bodies = {body for _, body in told if body}
    assert len({headers for headers, _ in told}) == 1
    assert len(bodies) == 1
    with redis_of(keyed) as client:
        assert client.keys("*job:*") == []


def test_open_routes_need_no_key(keyed: Keyed) -> None:
    """Probes and clients that read the document are answered, and a wrong key does not change that."""
    for method, path in sorted(OPEN):
        for headers in ({}, bearer("x")):
            assert ask(keyed.gateway, method, path, **headers).status_code == (503 if path == "/readyz" else 200)


@pytest.mark.parametrize(
    "headers",
    [
        lambda key: {"Authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer {key}"},
        lambda key: {"Authorization": f"BEARER  {key}"},
        lambda key: {"X-API-Key": key},
        lambda key: {"x-api-key": key, "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_how_a_key_is_sent(keyed: Keyed, headers: Callable[[str], dict[str, str]]) -> None:
    """As Authorization: Bearer, or as X-API-Key, which leaves Authorization to a proxy in front."""
    sent = headers(keyed.studio)
    job = keyed.gateway.post(GOOD, **sent)
    assert job.status_code == 202
    assert keyed.gateway.client.get(job.json()["links"]["self"], headers=sent).json() == job.json()


@pytest.mark.parametrize(
    "path", ["/healthz/../generate", "//generate", "/generate/", "/%67enerate", "/generate?x=/healthz", "/generate;x"]
)
@pytest.mark.parametrize("host", ["localhost", "localhost/healthz?x=", "a/healthz#", "x@localhost/healthz", "[::1"])
def test_no_disguise_opens_a_route(keyed: Keyed, path: str, host: str) -> None:
    """The path that decides is the one that is served, whatever the Host header adds to it."""
    body = json.dumps(GOOD).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", keyed.gateway.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        answer = connection.recv(65_536)
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 404 "))


def test_a_strangers_body_is_not_read(keyed: Keyed) -> None:
    """Who has no key is told so before a byte of the body was sent, and not what is wrong with it."""
    for body, kind in ((b"", "application/json"), (b"{", "application/json"), (b"x", "text/plain")):
        with socket.create_connection(("127.0.0.1", keyed.gateway.port), timeout=30) as connection:
            head = f"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 50000\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_readiness_keeps_its_numbers_from_strangers(keyed: Keyed) -> None:
    """Whether videos can be made is for everybody, how and with how many workers is not."""
    client = keyed.gateway.client
    stranger = problem(client.get("/readyz"), 503, "not_ready")
    known = problem(client.get("/readyz", headers=bearer(keyed.studio)), 503, "not_ready")
    assert stranger["missing"] == known["missing"] == ["worker"]
    assert "tiny-wan" in known["detail"]
    assert "tiny-wan" not in json.dumps(stranger)
    with redis_of(keyed) as queue:
        notice = {"worker_id": "w", "model": "tiny-wan", "state": "ready", "max_batch": 1, "cost_model": {}}
        queue.set("{q:tiny-wan}:worker:w", json.dumps(notice))
        queue.sadd("{q:tiny-wan}:workers", "w")
    assert client.get("/readyz").json() == {"status": "ready"}
    told = client.get("/readyz", headers=bearer(keyed.studio)).json()
    assert told == {"status": "ready", "model": "tiny-wan", "workers": 1, "queued": 0, "running": 0}


def test_what_a_key_opened_is_kept_by_no_cache(keyed: Keyed) -> None:
    """An answer to one tenant is nothing that a proxy may give to another; nor is the lack of one."""
    job = keyed.gateway.post(GOOD, **bearer(keyed.studio)).json()
    paths = [*job["links"].values(), f"/jobs/{'0' * 32}", "/models"]
    keyed.gateway.client.delete(job["links"]["self"], headers=bearer(keyed.studio))
    for path in paths:
        for headers in (bearer(keyed.studio), bearer(keyed.quiet), {}):
            answer = keyed.gateway.client.get(path, headers=headers)
            assert answer.headers["cache-control"] == "no-store", (path, answer.status_code)


class TestTenants:
    """Tenants do not see one another."""

    def test_another_tenants_job_is_not_there(self, keyed: Keyed, routes: list[tuple[str, str]]) -> None:
        """Every route that takes an id answers as if there were no such job, and does nothing to it."""
        job = keyed.gateway.post(GOOD, **bearer(keyed.studio)).json()
        with_id = [(method, path) for method, path in routes if "{" in path]
        assert len(with_id) >= 5
        for method, path in with_id:
            theirs = ask(keyed.gateway, method, path, job["id"], **bearer(keyed.quiet))
            nobodys = ask(keyed.gateway, method, path, "0" * 32, **bearer(keyed.quiet))
            assert theirs.status_code == 404
            assert theirs.text == nobodys.text
            if method != "HEAD":
                problem(theirs, 404, "not_found")
        owner = keyed.gateway.client.get(job["links"]["self"], headers=bearer(keyed.studio)).json()
        assert owner == job
        for method, path in with_id:  # DELETE is the first, so that the events of the job end
            assert '"not_found"' not in ask(keyed.gateway, method, path, job["id"], **bearer(keyed.studio)).text

    def test_an_idempotency_key_is_its_tenants_own(self, keyed: Keyed) -> None:
        """The same key of two tenants means two jobs, and neither can tell that there is another."""
        mine, theirs = (
            keyed.gateway.post(GOOD | {"seed": seed}, **{"Idempotency-Key": "k"}, **bearer(key))
            for seed, key in ((1, keyed.studio), (2, keyed.quiet))
        )
        assert (mine.status_code, theirs.status_code) == (202, 202)
        assert mine.json()["id"] != theirs.json()["id"]
        assert "idempotency-replayed" not in theirs.headers
        again = keyed.gateway.post(GOOD | {"seed": 1}, **{"Idempotency-Key": "k"}, **bearer(keyed.studio))
        assert (again.json()["id"], again.headers["idempotency-replayed"]) == (mine.json()["id"], "true")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def set_terms(file: Path, tenant: str, **terms: Any) -> None:
    document = json.loads(file.read_text())
    document["tenants"][tenant] |= terms
    file.write_text(json.dumps(document))


def redis_of(keyed: Keyed) -> redis.Redis:
    environment = Path(f"/proc/{keyed.gateway.process.pid}/environ").read_bytes().split(b"\0")
    (url,) = [entry.partition(b"=")[2].decode() for entry in environment if entry.startswith(b"REDIS_URL=")]
    return redis.Redis.from_url(url, decode_responses=True)


def test_a_quota_of_jobs(start_gateway: StartGateway, file: Path) -> None:
    """A tenant with all it may have waiting is told when to come again; the others, and repeats, are served."""
    first, second = new_key(file, "first"), new_key(file, "second")
    set_terms(file, "first", max_jobs=2)
    gateway = start_gateway(api_keys_file=str(file))
    jobs = [gateway.post(GOOD, **bearer(first), **{"Idempotency-Key": f"{n}"}).json() for n in range(2)]
    answer = gateway.post(GOOD, **bearer(first))
    problem(answer, 429, "tenant_quota")
    assert int(answer.headers["retry-after"]) >= 1
    assert gateway.post(GOOD, **bearer(first), **{"Idempotency-Key": "1"}).json()["id"] == jobs[1]["id"]
    assert gateway.post(GOOD, **bearer(second)).status_code == 202
    gateway.client.delete(jobs[0]["links"]["self"], headers=bearer(first))
    assert gateway.post(GOOD, **bearer(first)).status_code == 202
    set_terms(file, "first", max_jobs=3)
    assert gateway.post(GOOD, **bearer(first)).status_code == 202


def test_a_quota_of_seconds(start_gateway: StartGateway, file: Path) -> None:
    """Few long jobs use a tenant's share up as many short ones do."""
    key = new_key(file, "first")
    set_terms(file, "first", max_seconds=0.001)
    gateway = start_gateway(api_keys_file=str(file))
    assert gateway.post(GOOD, **bearer(key)).status_code == 202
    problem(gateway.post(GOOD, **bearer(key)), 429, "tenant_quota")


def test_weights_are_told_to_the_queue(start_gateway: StartGateway, file: Path, redis_url: str) -> None:
    """Those of the file, as it is now."""
    new_key(file, "first")
    set_terms(file, "first", weight=2.5)
    start_gateway(api_keys_file=str(file))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:

        def until(weights: dict[str, str]) -> None:
            deadline = time.monotonic() + 30
            # Other gateways of this Valkey tell it of their own tenants.
            while not weights.items() <= (seen := client.hgetall("{q:tiny-wan}:weights")).items():
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)

        until({"first": "2.5"})
        set_terms(file, "first", weight=1.5)
        new_key(file, "second")
        until({"first": "1.5", "second": "1.0"})


def test_keys_come_and_go_without_a_restart(start_gateway: StartGateway, file: Path) -> None:
    """A new key opens at once, a revoked or expired one no longer, and half a file changes nothing."""
    old = new_key(file, "first")
    gateway = start_gateway(api_keys_file=str(file))

    def opens(key: str) -> bool:
        answer = gateway.client.get("/models", headers=bearer(key))
        if answer.status_code != 200:
            unauthorized(answer)
        return answer.status_code == 200

    new = new_key(file, "second")
    assert (opens(old), opens(new)) == (True, True)
    remove_key(file, old.split("_")[1])
    now = datetime.now(UTC)
    expired = add_key(file, "first", created=now, expires=now - timedelta(seconds=1))
    assert (opens(old), opens(new), opens(expired)) == (False, True, False)
    file.write_text(file.read_text()[:100])
    assert (opens(old), opens(new)) == (False, True)
    file.unlink()
    assert (opens(old), opens(new)) == (False, True)
    assert gateway.log.read_text().count("stay in force") == 2


def test_without_a_keys_file_nothing_is_asked(gateway: Gateway) -> None:
    """As ever on one's own machine; a key that is sent all the same is no mistake."""
    job = gateway.post(GOOD, **bearer("whatever")).json()
    assert gateway.client.get(job["links"]["self"]).json() == job


def test_no_key_is_logged(start_gateway: StartGateway, file: Path) -> None:
    """However it comes, well or badly, in whatever header, and whatever becomes of the request."""
    keys = [new_key(file, "first"), new_key(file, "first")]
    gateway = start_gateway(api_keys_file=str(file), log_level="debug")
    job = gateway.post(GOOD, **bearer(keys[0])).json()
    gateway.client.delete(job["links"]["self"], headers={"X-API-Key": keys[0]})
    with httpx.Client(base_url=gateway.url, headers=bearer(keys[0])) as client:
        assert list(read_events(client, job["links"]["events"]))
    remove_key(file, keys[0].split("_")[1])
    for key in keys:
        for headers in strange_keys(key):
            gateway.client.get("/models", headers={name: text.encode() for name, text in headers.items()})
        gateway.client.get("/models", headers=bearer(key))
        gateway.client.get("/jobs/nope", headers=bearer(key))
        gateway.client.get("/models", params={"api_key": key})
        gateway.client.post("/generate", content=b"{", headers=JSON | bearer(key))
        for line in (f"Authorization: Bearer {key}\0", f"X-API-Key: {key}\x7f", f"X-API-Key : {key}"):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
                connection.sendall(f"GET /models HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
                assert connection.recv(4096).startswith(b"HTTP/1.1 4")
    pasted = json.dumps({"tenants": {"first": {"keys": [keys[1]]}}})
    file.write_text(pasted)
    gateway.client.get("/models", headers=bearer(keys[1]))
    gateway.stop()
    log = gateway.log.read_text()
    assert "GET /models 200" in log
    assert "GET /models 401" in log
    assert "stay in force" in log
    for key in keys:
        assert key.split("_", 2)[2] not in log
