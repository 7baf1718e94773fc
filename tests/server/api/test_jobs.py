"""What a client is told of a job while no worker takes it: admission, place in the queue, cancelling, repeating."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.server.api.conftest import StartGateway
from tests.server.api.test_refusals import GOOD, problem
from tests.server.live import Gateway, read_events


def test_a_job_is_accepted_with_everything_resolved(gateway: Gateway) -> None:
    """202, a Location, links, and every parameter that decides the video."""
    answer = gateway.post({"prompt": "a red ball", "width": 48, "guidance_scale": 2, "seed": 5})
    assert answer.status_code == 202
    job = answer.json()
    assert re.fullmatch(r"[0-9a-f]{32}", job["id"])
    path = f"/jobs/{job['id']}"
    assert answer.headers["location"] == path
    assert job["links"] == {"self": path, "events": f"{path}/events", "video": f"{path}/video"}
    assert (job["state"], job["seed"], job["attempt"], job["error"], job["video"]) == ("queued", 5, 0, None, None)
    assert job["parameters"] == {
        "prompt": "a red ball",
        "negative_prompt": "",
        "model": "tiny-wan",
        "width": 48,
        "height": 32,
        "num_frames": 9,
        "fps": 8,
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "seed": 5,
        "format": "mp4",
        "enhance_prompt": "never",
    }
    assert gateway.client.get(path).json() == job


def test_parameters_can_be_sent_back(gateway: Gateway) -> None:
    """The parameters of a job are themselves a request, for the same video."""
    first = gateway.post(GOOD | {"format": "webm"}).json()
    again = gateway.post(first["parameters"]).json()
    assert again["id"] != first["id"]
    assert again["parameters"] == first["parameters"]


def test_a_seed_is_drawn_and_told(gateway: Gateway) -> None:
    """Without a seed each job gets its own, which any JSON reader holds exactly."""
    seeds = {gateway.post(GOOD).json()["seed"] for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_bounds_themselves_are_allowed(gateway: Gateway) -> None:
    """What the model's card allows at most is accepted."""
    for fields in (
        {"seed": 2**53 - 1},
        {"seed": 0},
        {"width": 96, "height": 16},
        {"num_frames": 1, "fps": 30, "num_inference_steps": 50},
        {"guidance_scale": 20.0},
        {"guidance_scale": 0},
        {"prompt": "ü\n\t" + "a" * 497},
        {"prompt": "\U0001f600 \u05d0\u202e"},
        {"width": None, "seed": None, "negative_prompt": None, "model": None},
    ):
        assert gateway.post(GOOD | fields).status_code == 202, fields


def test_place_and_estimate_grow_with_the_queue(gateway: Gateway) -> None:
    """Each further job waits behind the ones before it and is told so."""
    jobs = [gateway.post(GOOD).json() for _ in range(3)]
    assert [job["queue_position"] for job in jobs] == [0, 1, 2]
    estimates = [job["estimate_seconds"] for job in jobs]
    assert 0 <= estimates[0] <= estimates[1] <= estimates[2]


def test_cancelling_a_queued_job(gateway: Gateway) -> None:
    """It is over at once, however often it is called off, and the next one moves up."""
    first, second = (gateway.post(GOOD).json() for _ in range(2))
    for _ in range(3):
        answer = gateway.client.delete(f"/jobs/{first['id']}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    told = gateway.client.get(f"/jobs/{first['id']}").json()
    assert told["finished_at"] >= told["created_at"]
    assert told["expires_at"] == told["finished_at"] + 86_400
    assert (told["queue_position"], told["estimate_seconds"]) == (None, None)
    assert gateway.client.get(f"/jobs/{second['id']}").json()["queue_position"] == 0


def test_the_video_of_a_job_that_has_none(gateway: Gateway) -> None:
    """Not made yet, and never to be made, are told apart."""
    job = gateway.post(GOOD).json()
    problem(gateway.client.get(job["links"]["video"]), 409, "video_not_ready")
    gateway.client.delete(job["links"]["self"])
    problem(gateway.client.get(job["links"]["video"]), 404, "video_missing")


def test_events_of_a_cancelled_job_end(gateway: Gateway) -> None:
    """The stream of a job that is over ends after its last event, and one who has seen that gets 204."""
    job = gateway.post(GOOD).json()
    gateway.client.delete(job["links"]["self"])
    events = list(read_events(gateway.client, job["links"]["events"]))
    assert [kind for _, kind, _ in events] == ["queued", "cancelled"]
    assert list(read_events(gateway.client, job["links"]["events"], after=events[0][0])) == events[1:]
    answer = gateway.client.get(job["links"]["events"], headers={"Last-Event-ID": events[-1][0]})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_last_event_id_that_is_none(gateway: Gateway) -> None:
    """A malformed Last-Event-ID is a client's mistake."""
    job = gateway.post(GOOD).json()
    for text in ("abc", "1-2-3", "$", "-", "9" * 20, f"1-{2**64}", "9" * 40):
        answer = gateway.client.get(job["links"]["events"], headers={"Last-Event-ID": text})
        assert problem(answer, 422, "invalid_field")["field"] == "Last-Event-ID"


def test_a_quiet_stream_is_kept_alive(start_gateway: StartGateway) -> None:
    """While nothing happens a comment is sent now and then, so that proxies keep the line open."""
    gateway = start_gateway(event_ping_seconds="0.2")
    job = gateway.post(GOOD).json()
    with gateway.client.stream("GET", job["links"]["events"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert any(line.startswith(": ping") for line in answer.iter_lines())


def test_streams_are_bounded(start_gateway: StartGateway) -> None:
    """Listeners beyond the bound are told to come back, and the rest of the API has its connections."""
    gateway = start_gateway(max_event_streams="1")
    events = gateway.post(GOOD).json()["links"]["events"]
    with gateway.client.stream("GET", events) as first:
        lines = first.iter_lines()
        assert next(lines)
        answer = gateway.client.get(events)
        problem(answer, 429, "too_many_streams")
        assert answer.headers["retry-after"]
        assert gateway.post(GOOD).status_code == 202


def test_the_same_idempotency_key_is_the_same_job(gateway: Gateway) -> None:
    """A repeat gets the first answer's job and seed, however the body was written."""
    first = gateway.post(GOOD | {"width": 64}, **{"Idempotency-Key": "key-1"})
    body = json.dumps({"width": 64, **GOOD}, indent=2)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key-1"}
    again = gateway.client.post("/generate", content=body, headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert gateway.post(GOOD | {"width": 64}, **{"Idempotency-Key": "key-2"}).json()["id"] != first.json()["id"]


def test_an_idempotency_key_with_another_body(gateway: Gateway) -> None:
    """A key belongs to one body."""
    gateway.post(GOOD | {"seed": 1}, **{"Idempotency-Key": "key"})
    problem(gateway.post(GOOD | {"seed": 2}, **{"Idempotency-Key": "key"}), 422, "idempotency_conflict")


def test_priorities_order_ones_own_jobs(gateway: Gateway) -> None:
    """A job of a smaller number goes before those that came a moment earlier."""
    usual, urgent, idle = (gateway.post(GOOD | asked).json() for asked in ({}, {"priority": 0}, {"priority": 9}))
    told = [gateway.client.get(job["links"]["self"]).json() for job in (usual, urgent, idle)]
    assert [(job["priority"], job["queue_position"]) for job in told] == [(5, 1), (0, 0), (9, 2)]
    problem(gateway.post(GOOD | {"priority": 10}), 422, "invalid_field")


def test_a_full_queue(start_gateway: StartGateway) -> None:
    """Beyond the bound a job is refused with the time to wait, and there is room again after one was called off."""
    gateway = start_gateway(queue_max_jobs="2")
    jobs = [gateway.post(GOOD).json() for _ in range(2)]
    answer = gateway.post(GOOD)
    problem(answer, 429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    gateway.client.delete(jobs[0]["links"]["self"])
    assert gateway.post(GOOD).status_code == 202


def test_a_queue_full_of_work(start_gateway: StartGateway) -> None:
    """The bound is on predicted seconds too: few long jobs fill it as many short ones do."""
    gateway = start_gateway(queue_max_seconds="0.001")
    answers = [gateway.post(GOOD) for _ in range(4)]
    problem(answers[-1], 429, "queue_full")


def test_models_tell_defaults_and_limits(gateway: Gateway) -> None:
    """What GET /models says is what POST /generate keeps to."""
    (model,) = gateway.client.get("/models").json()["models"]
    assert (model["name"], model["ready"]) == ("tiny-wan", False)
    job: dict[str, Any] = gateway.post(GOOD).json()
    assert model["defaults"].items() <= job["parameters"].items()
    over = model["limits"]["max_width"] + model["limits"]["spatial_multiple"]
    problem(gateway.post(GOOD | {"width": over}), 422, "invalid_field")


def test_liveness_and_readiness(gateway: Gateway) -> None:
    """The process lives; without a worker it is not ready and says what is missing."""
    assert gateway.client.get("/healthz").json() == {"status": "ok"}
    answer = gateway.client.get("/readyz")
    assert problem(answer, 503, "not_ready")["missing"] == ["worker"]
    assert "tiny-wan" in answer.text


def test_no_prompt_is_logged_and_each_record_is_a_line(start_gateway: StartGateway) -> None:
    """What people ask for stays out of the log, and nobody writes lines of their own into it."""
    gateway = start_gateway(log_level="debug")
    gateway.post({"prompt": "a very private wish"})
    gateway.client.get("/jobs/a%0AFORGED%20line%1b[31m%E2%80%AE")
    log = gateway.log.read_text()
    assert "private" not in log
    assert "\nFORGED" not in log
    assert all(line.isprintable() for line in log.splitlines())
    assert "POST /generate 202" in log
