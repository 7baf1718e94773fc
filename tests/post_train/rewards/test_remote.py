"""A remote reward gives the scorer's own scores over real HTTP, and every failure names the reward and the film."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from post_train.rewards.base import Dimension, Film, RewardError, Score, scored
from post_train.rewards.remote import Clock, Patience, RemoteReward
from post_train.rewards.schema import SCHEMA_VERSION
from post_train.rewards.wire import Transport
from tests.post_train.rewards.serving import Answer, answering, film, reply, served

FACTS = {"schema_version": SCHEMA_VERSION, "name": "mean", "digest": "d1", "dimension": "vq"}
NO_RETRY = Patience(connect=5, answer=5, retry_for=0)


class MeanBrightness:
    """A reward that can be told by hand: the mean of all pixels, with the film's length as its noise."""

    name, digest, dimension = "mean", "d1", Dimension.VISUAL_QUALITY

    def score(self, films: Sequence[Film]) -> list[Score]:
        return [
            Score(value=float(f.frames.mean()), noise=float(len(f.frames)), parts={"fps": float(f.fps)}) for f in films
        ]


class Failing(MeanBrightness):
    """Fails on the film called b."""

    def score(self, films: Sequence[Film]) -> list[Score]:
        for one in films:
            if one.name == "b":
                raise RewardError(self.name, "b", "it is too dark")
        return super().score(films)


class NotANumber(MeanBrightness):
    """Gives NaN for the film called b."""

    def score(self, films: Sequence[Film]) -> list[Score]:
        return [Score(value=math.nan if f.name == "b" else 1.0, noise=0.0) for f in films]


class FakeTime:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.at, self.slept = 0.0, 0

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept += 1

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, sleep=self.sleep)


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_scores_are_the_scorers_own(transport: Transport, batch: int, tmp_path: Path) -> None:
    """Value, noise and parts arrive to the bit and in order, however films travel and are batched."""
    films = [film(name, seed=i, side=32 + 2 * i) for i, name in enumerate("abcde")]
    shared = tmp_path if transport is Transport.PATH else None
    with served(MeanBrightness(), shared=tmp_path) as url:
        reward = RemoteReward(url, transport=transport, batch=batch, shared=shared)
        assert scored(reward, films) == MeanBrightness().score(films)
        reward.close()
    assert (reward.digest, reward.dimension) == ("d1", Dimension.VISUAL_QUALITY)
    assert "mean" in reward.name
    assert not list(tmp_path.iterdir())


def _scripted(*answers: tuple[int, bytes]) -> Answer:
    """Facts first, then `answers` in turn, the last for ever."""
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            reply(handler, 200, json.dumps(FACTS).encode())
        else:
            reply(handler, *(left.pop(0) if len(left) > 1 else left[0]))

    return answer


def _scores(*values: object, **changed: object) -> bytes:
    scores = [{"value": v, "noise": 0.1} for v in values]
    return json.dumps({**FACTS, "scores": scores, **changed}).encode()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b'{"reason": "out of memory", "film": "b"}', r"'b'.*answers 500: out of memory"),
        (500, b"<html>oh</html>", r"'a, b'.*answers 500: <html>oh"),
        (404, b"", "answers 404: nothing more"),
        (200, _scores(1.0, math.nan), r"film 'b'.*it is nan"),
        (200, _scores(1.0, math.inf), r"film 'b'.*it is inf"),
        (200, _scores(1.0, None), r"scores\.1\.value"),
        (200, _scores(1.0), "1 scores for 2 films"),
        (200, _scores(1.0, 2.0, 3.0), "3 scores for 2 films"),
        (200, _scores(1.0, 2.0, schema_version=2), "speaks schema version 2, this is 1"),
        (200, _scores(1.0, 2.0, digest="d2"), "was d1 when the run began and now is d2"),
        (200, _scores(1.0, 2.0, extra=1), "extra"),
        (200, b'{"schema_version": 1, "scores": [', "does not fit schema version 1"),
        (200, b"[]", "does not fit schema version 1"),
        (200, b"", "does not fit schema version 1"),
    ],
)
def test_a_wrong_answer_stops_the_run(status: int, body: bytes, says: str) -> None:
    """Errors, NaN, another version, digest or count, and what is no answer at all: never a score, never tried again."""
    with answering(_scripted((status, body))) as url:
        reward = RemoteReward(url, patience=NO_RETRY)
        with pytest.raises(RewardError, match=says) as raised:
            reward.score([film("a"), film("b")])
        reward.close()
    assert url in raised.value.reward
    assert "nothing was counted as zero" in str(raised.value)


def test_a_scorer_that_dies_half_way_stops_the_run() -> None:
    """A connection that breaks in the middle of the answer is an error, not a short answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            reply(handler, 200, json.dumps(FACTS).encode())
        else:
            whole = _scores(1.0)
            reply(handler, 200, whole[: len(whole) // 2], promised=len(whole))

    with answering(answer) as url:
        reward = RemoteReward(url, patience=NO_RETRY)
        with pytest.raises(RewardError, match=r"film 'a'.*broke off"):
            reward.score([film("a")])
        reward.close()


def test_a_scorer_that_is_silent_stops_the_run() -> None:
    """No answer within the time is an error at once; the films are not sent a second time."""
    asked: list[str] = []
    enough = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.command)
        if handler.command == "GET":
            reply(handler, 200, json.dumps(FACTS).encode())
        else:
            enough.wait(30)

    with answering(answer) as url:
        reward = RemoteReward(url, patience=Patience(connect=5, answer=0.3, retry_for=60))
        with pytest.raises(RewardError, match=r"film 'a'.*no answer within 0\.3 s"):
            reward.score([film("a")])
        reward.close()
        enough.set()
    assert asked == ["GET", "POST"]


def test_a_scorer_that_drips_stops_the_run() -> None:
    """The time holds for the whole answer: one byte now and then does not keep a run waiting for ever."""
    time = FakeTime()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            reply(handler, 200, json.dumps(FACTS).encode())
            return
        handler.send_response(200)
        handler.end_headers()
        time.at += 1000
        handler.wfile.write(b" ")

    with answering(answer) as url:
        reward = RemoteReward(url, patience=Patience(answer=600), clock=time.clock())
        with pytest.raises(RewardError, match="no whole answer within 600 s"):
            reward.score([film("a")])
        reward.close()


def test_busy_is_tried_again() -> None:
    """Two 503 and then scores: the run goes on, having paused twice."""
    time = FakeTime()
    busy = (503, b'{"reason": "4 requests wait already"}')
    with answering(_scripted(busy, busy, (200, _scores(2.5)))) as url:
        reward = RemoteReward(url, clock=time.clock())
        assert [s.value for s in reward.score([film("a")])] == [2.5]
        reward.close()
    assert time.slept == 2


def test_busy_for_too_long_stops_the_run() -> None:
    """A 503 is tried again until the stated time is over, with growing pauses, and no longer."""
    time = FakeTime()
    with answering(_scripted((503, b'{"reason": "4 requests wait already"}'))) as url:
        reward = RemoteReward(url, patience=Patience(retry_for=20), clock=time.clock())
        with pytest.raises(RewardError, match=r"4 requests wait already, and did so for 20 s"):
            reward.score([film("a")])
        reward.close()
    assert time.at <= 20
    assert time.slept < 10


def test_a_scorer_that_is_not_there_stops_the_run() -> None:
    """A refused connection is tried again for the stated time, then the address is named."""
    time = FakeTime()
    with answering(_scripted((200, b""))) as url:
        pass
    with pytest.raises(RewardError, match="connection fails") as raised:
        RemoteReward(url, patience=Patience(retry_for=3), clock=time.clock())
    assert raised.value.reward == url
    assert time.slept >= 2


def test_the_scorers_own_failure_names_its_film() -> None:
    """What fails inside the service, or is NaN there, comes out as the error of that very film."""
    for scorer, says in ((Failing(), "too dark"), (NotANumber(), "it is nan")):
        with served(scorer) as url:
            reward = RemoteReward(url)
            with pytest.raises(RewardError, match=says) as raised:
                reward.score([film("a"), film("b")])
            reward.close()
        assert raised.value.film == "b"


@pytest.mark.parametrize("values", [{"connect": 0.0}, {"answer": -1.0}, {"retry_for": -1.0}, {"answer": math.nan}])
def test_patience_is_positive(values: dict[str, float]) -> None:
    """A time that cannot be is refused when it is stated, not when it runs out."""
    with pytest.raises(ValueError, match="positive seconds"):
        Patience(**values)


def test_a_batch_and_a_folder_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """An empty or too large batch, a shared folder without its transport and the other way round."""
    for batch in (0, 65):
        with pytest.raises(ValueError, match="1 to 64 films"):
            RemoteReward("http://127.0.0.1:1", batch=batch)
    with pytest.raises(ValueError, match="shared folder"):
        RemoteReward("http://127.0.0.1:1", transport=Transport.PATH)
    with pytest.raises(ValueError, match="shared folder"):
        RemoteReward("http://127.0.0.1:1", shared=tmp_path)
