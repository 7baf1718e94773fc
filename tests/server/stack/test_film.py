"""A prompt goes in by HTTP, a film that plays comes out."""

from __future__ import annotations

import io
from typing import Any

import av
import httpx
import pytest

from tests.server.api.test_refusals import problem
from tests.server.live import Stack


@pytest.fixture(scope="session")
def film(shared_stack: Stack) -> dict[str, Any]:
    """A finished job, shared by the tests that only look at it; its events are under `events`."""
    job = shared_stack.post({"prompt": "a red ball rolls over a green meadow", "seed": 11, "fps": 12})
    events = list(shared_stack.events(job["id"]))
    return shared_stack.job(job["id"]) | {"events": events}


def decoded(content: bytes) -> tuple[int, int, int, float]:
    """Frames, width, height and frames a second of a file, by decoding every frame."""
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return len(frames), frames[0].shape[1], frames[0].shape[0], float(stream.average_rate)


def test_a_film_is_made(stack: Stack, film: dict[str, Any]) -> None:
    """The job succeeds, and its file decodes to the frames, size and speed that were asked for."""
    assert (film["state"], film["error"], film["attempt"]) == ("succeeded", None, 1)
    assert film["progress"]["fraction"] == 1
    assert film["created_at"] <= film["started_at"] <= film["finished_at"] < film["expires_at"]
    assert decoded(stack.video(film["id"])) == (9, 32, 32, 12.0)


@pytest.mark.parametrize(("video_format", "media_type"), [("mp4", "video/mp4"), ("webm", "video/webm")])
def test_size_length_and_format_are_as_asked(stack: Stack, video_format: str, media_type: str) -> None:
    """Every format holds the film that the parameters describe, under its own media type and name."""
    asked = {"width": 48, "height": 32, "num_frames": 5, "fps": 10, "num_inference_steps": 2, "format": video_format}
    job = stack.finish(stack.post({"prompt": "a cat", **asked})["id"])
    assert job["state"] == "succeeded", job
    answer = stack.client.get(job["links"]["video"])
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == f'inline; filename="{job["id"]}.{video_format}"'
    assert decoded(answer.content) == (5, 48, 32, 10.0)


def test_the_same_request_is_the_same_film(stack: Stack, film: dict[str, Any]) -> None:
    """The parameters of a job, sent again, give the same bytes."""
    again = stack.finish(stack.post(film["parameters"])["id"])
    assert again["parameters"] == film["parameters"]
    assert stack.video(again["id"]) == stack.video(film["id"])


def test_another_seed_is_another_film(stack: Stack, film: dict[str, Any]) -> None:
    """The seed decides."""
    other = stack.finish(stack.post(film["parameters"] | {"seed": 12})["id"])
    assert stack.video(other["id"]) != stack.video(film["id"])


def test_events_tell_the_whole_story(film: dict[str, Any]) -> None:
    """Queued, running, every step in order, succeeded; ids grow."""
    kinds = [kind for _, kind, _ in film["events"]]
    assert (kinds[0], kinds[1], kinds[-1]) == ("queued", "running", "succeeded")
    assert set(kinds[2:-1]) <= {"progress"}
    steps = [data["step"] for _, kind, data in film["events"] if kind == "progress"]
    assert steps == sorted(steps)
    ids = [tuple(map(int, name.split("-"))) for name, _, _ in film["events"]]
    assert ids == sorted(set(ids))


def test_a_stream_resumes_where_it_was_left(stack: Stack, film: dict[str, Any]) -> None:
    """From any event on, exactly the rest is sent; from the last, that there is no more."""
    events = film["events"]
    for number, (name, _, _) in enumerate(events):
        assert list(stack.events(film["id"], after=name)) == events[number + 1 :]


def test_a_stream_resumed_at_every_event_loses_nothing(stack: Stack) -> None:
    """A client that hangs up after each event of a running film, and comes back, sees what one that stays sees."""
    job = stack.post({"prompt": "a ball", "num_inference_steps": 30, "width": 64, "height": 64})
    seen: list[Any] = []
    while not seen or seen[-1][1] not in ("succeeded", "failed"):
        seen.append(next(stack.events(job["id"], after=seen[-1][0] if seen else None)))
    assert seen == list(stack.events(job["id"]))


class TestRange:
    """Players and download managers ask for parts."""

    @pytest.fixture
    def content(self, stack: Stack, film: dict[str, Any]) -> bytes:
        return stack.video(film["id"])

    def get(self, stack: Stack, film: dict[str, Any], **headers: str) -> httpx.Response:
        return stack.client.get(film["links"]["video"], headers={n.replace("_", "-"): v for n, v in headers.items()})

    def test_whole(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """Without a Range the whole is sent, and that parts may be asked for is told."""
        answer = self.get(stack, film)
        assert answer.headers["accept-ranges"] == "bytes"
        assert int(answer.headers["content-length"]) == len(content)
        assert "content-range" not in answer.headers

    def test_parts(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """A part is exactly those bytes, and parts joined are the whole."""
        size = len(content)
        for header, start, stop in [
            ("bytes=0-0", 0, 1),
            ("bytes=10-19", 10, 20),
            (f"bytes={size - 1}-", size - 1, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=5-{size * 9}", 5, size),
            ("bytes=0-", 0, size),
        ]:
            answer = self.get(stack, film, Range=header)
            assert answer.status_code == 206
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert answer.content == content[start:stop]

    def test_outside(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """Nothing there is 416, with the true size."""
        for header in (f"bytes={len(content)}-", f"bytes={2**62}-", "bytes=-0"):
            answer = self.get(stack, film, Range=header)
            problem(answer, 416, "range_not_satisfiable")
            assert answer.headers["content-range"] == f"bytes */{len(content)}"

    def test_odd_ones(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """What is malformed, or many ranges at once, gets the whole, once."""
        for header in ("bytes=9-1", "bytes=x", "lines=1-2", "bytes=0-0,2-2", "bytes=" + "0-," * 5000):
            answer = self.get(stack, film, Range=header)
            assert (answer.status_code, answer.content) == (200, content)

    def test_if_range(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """A part is sent only to one who has the beginning of this very file."""
        etag = self.get(stack, film).headers["etag"]
        assert self.get(stack, film, Range="bytes=0-4", If_Range=etag).status_code == 206
        assert self.get(stack, film, Range="bytes=0-4", If_Range='"other"').content == content

    def test_if_none_match(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """Who has the file is told so and sent nothing."""
        etag = self.get(stack, film).headers["etag"]
        for header in (etag, f'"x", {etag}', f"W/{etag}", "*"):
            answer = self.get(stack, film, If_None_Match=header)
            assert (answer.status_code, answer.content) == (304, b"")
        assert self.get(stack, film, If_None_Match='"other"').content == content

    def test_head(self, stack: Stack, film: dict[str, Any], content: bytes) -> None:
        """HEAD tells what GET would, without the bytes."""
        answer = stack.client.head(film["links"]["video"])
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) == len(content)
        assert answer.headers["content-type"] == "video/mp4"
        part = stack.client.head(film["links"]["video"], headers={"Range": "bytes=0-4"})
        assert (part.status_code, part.headers["content-length"]) == (206, "5")


def test_a_video_that_is_gone(stack: Stack, film: dict[str, Any]) -> None:
    """A film whose file was removed is told apart from one that never was."""
    job = stack.finish(stack.post(film["parameters"])["id"])
    (file,) = (stack.state_dir / "artifacts").glob(f"*/{job['id']}/*.mp4")
    file.unlink()
    problem(stack.client.get(job["links"]["video"]), 410, "video_expired")


def test_cancelling_an_ended_job_changes_nothing(stack: Stack, film: dict[str, Any]) -> None:
    """DELETE of a finished job answers with the job as it is, and the film stays."""
    answer = stack.client.delete(film["links"]["self"])
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert stack.video(film["id"])


def test_cancelling_a_running_job(stack: Stack) -> None:
    """It stops at a step long before its end, there is no video, and the next job is made.

    The film would take the better part of a minute: a queue that is silent for seconds must not outlast it.
    """
    job = stack.post({"prompt": "a ball", "num_inference_steps": 200, "width": 256, "height": 256, "num_frames": 33})
    steps = 0
    for _, kind, data in stack.events(job["id"]):
        if kind == "progress" and data["stage"] == "denoise" and data["step"] >= 1 and not steps:
            answer = stack.client.delete(job["links"]["self"])
            assert answer.status_code == 202
            assert answer.json()["cancel_requested"] is True
        steps = data.get("step", steps)
    assert kind == "cancelled"
    assert steps < 200
    problem(stack.client.get(job["links"]["video"]), 404, "video_missing")
    assert stack.finish(stack.post({"prompt": "a cat"})["id"])["state"] == "succeeded"


def test_the_ready_line_can_be_copied(stack: Stack) -> None:
    """What `rushes serve` says it can be tried with, works when pasted into a shell."""
    import subprocess

    ready = next(line for line in stack.said if line.startswith("ready: "))
    command = next(line for line in stack.said if line.startswith("try: ")).removeprefix("try:").strip()
    assert stack.url in ready
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert '"state":' in done.stdout, done
