"""The reference service holds requests to its schema, reads films only where it may, and tells what it cannot serve."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import torch

from post_train.rewards.base import Dimension, Film, Score
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.remote import RemoteReward
from post_train.rewards.schema import SCHEMA_VERSION
from post_train.rewards.service import main
from post_train.rewards.upstream import UPSTREAM, Sources, UpstreamMissingError, load_upstream
from post_train.rewards.visual import VisualQuality, save_visual
from post_train.rewards.visual_network import VisualConfig, VisualNetwork
from post_train.rewards.wire import mp4_bytes
from tests.post_train.rewards.serving import film, served


class Constant:
    """One for every film."""

    name, digest, dimension = "one", "d", Dimension.MOTION_QUALITY

    def score(self, films: Sequence[Film]) -> list[Score]:
        return [Score(value=1.0, noise=0.0) for _ in films]


def _films(**fields: object) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "films": [{"name": "a", "prompt": "p", "fps": 8, **fields}],
    }


def _mp4() -> str:
    return base64.b64encode(mp4_bytes(film().frames, 8)).decode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"schema_version": 2, "films": "whatever 2 means"}, 400, "speaks schema version 1, the request 2"),
        ({"films": []}, 400, "schema_version"),
        ({"schema_version": 1, "films": []}, 400, "films"),
        (_films(), 400, "one of png, mp4 or path, got none"),
        (_films(png=["x"], mp4="y"), 400, "got ['png', 'mp4']"),
        (_films(png=["AAAA"]), 422, "frame 0 is no PNG"),
        (_films(png=[""]), 422, "frame 0 is no PNG"),
        (_films(mp4="?"), 422, "not base64"),
        (_films(mp4="AAAA"), 422, "no film that can be decoded"),
        (_films(path="a.mp4"), 422, "is no file in the shared folder"),
        (_films(path="../secret.mp4"), 422, "is no file in the shared folder"),
        (_films(path="/etc/passwd"), 422, "is no file in the shared folder"),
        (_films(mp4="AAAA", fps=0), 400, "fps"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(body: dict[str, object], status: int, says: str, tmp_path: Path) -> None:
    """Another version, a film in no or two ways, bad pictures, a path outside: a status and one sentence."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "secret.mp4").write_bytes(mp4_bytes(film().frames, 8))
    with served(Constant(), shared=shared) as url:
        response = httpx.post(f"{url}/v1/scores", json=body, trust_env=False)
    assert response.status_code == status, response.text
    assert says in response.json()["reason"]


def test_no_disk_is_shared_unless_it_is_said() -> None:
    """Without a shared folder a path is refused, whatever it names."""
    with served(Constant()) as url:
        response = httpx.post(f"{url}/v1/scores", json=_films(path="a.mp4"), trust_env=False)
    assert response.status_code == 422
    assert "shares no disk" in response.json()["reason"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"schema_version": NaN}'])
def test_what_is_no_request_is_no_500(body: bytes) -> None:
    """Bodies that are no request are the client's mistake."""
    with served(Constant()) as url:
        assert httpx.post(f"{url}/v1/scores", content=body, trust_env=False).status_code == 400


def test_too_many_at_once_are_told_to_come_again() -> None:
    """While four requests are with the scorer a fifth gets 503 at once, and all four their scores."""
    inside, go_on = threading.Semaphore(0), threading.Event()

    class Slow(Constant):
        def score(self, films: Sequence[Film]) -> list[Score]:
            inside.release()
            assert go_on.wait(60)
            return super().score(films)

    answers: list[int] = []
    answered = threading.Semaphore(0)
    body = _films(mp4=_mp4())
    with served(Slow()) as url:

        def ask() -> None:
            answers.append(httpx.post(f"{url}/v1/scores", json=body, trust_env=False, timeout=60).status_code)
            answered.release()

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asking:
            thread.start()
        assert inside.acquire(timeout=60)
        # One is with the scorer and three wait for it, so that the first four answers are refusals.
        assert all(answered.acquire(timeout=60) for _ in range(4))
        assert answers == [503] * 4
        go_on.set()
        for thread in asking:
            thread.join()
    assert answers == [503] * 4 + [200] * 4


def _random_judge(folder: Path) -> None:
    torch.manual_seed(0)
    config = VisualConfig(mixing=Mixing.CONVOLUTION, fine=8, width=8, depth=1, heads=2)
    save_visual(VisualNetwork(config), folder, {"judge": "reward"})


def _service(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "post_train.rewards.service", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_the_command_serves_our_own_judge(tmp_path: Path) -> None:
    """A process started as the docstring says gives over HTTP what the judge gives in this one."""
    _random_judge(tmp_path / "reward")
    with _service("--reward", "vq", "--weights", str(tmp_path), "--port", "0") as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split(" at ")[-1].strip()
            reward = RemoteReward(url)
            films = [film("a"), film("b", seed=1)]
            here = VisualQuality("reward", weights=tmp_path)
            for there, own in zip(reward.score(films), here.score(films), strict=True):
                assert there.value == pytest.approx(own.value, rel=1e-5)
                assert there.noise == pytest.approx(own.noise, rel=1e-4)
            assert reward.digest == here.digest
            reward.close()
        finally:
            process.terminate()


def test_the_command_lists_what_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` says of every upstream scorer that it was not run, and what it needs."""
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(UPSTREAM)
    assert all("not run" in line and "It needs" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--reward", "vq", "--weights", "nowhere"], "rushes train visual"),
        (["--reward", "ta", "--weights", "nowhere"], "rushes train reward"),
        (["--reward", "hpsv3"], "It needs package hpsv3"),
    ],
)
def test_the_command_tells_what_is_missing(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing weights or packages end it with status 2 and a sentence."""
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--reward", "beauty"], "invalid choice"), ([], "name a --reward"), (["--port", "x"], "port")],
)
def test_the_command_tells_of_mistakes(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown rewards, none at all and a port that is no number end it with status 2 before anything is loaded."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", UPSTREAM)
def test_an_upstream_scorer_that_is_not_here_says_what_it_needs(name: str) -> None:
    """Neither package nor checkout nor weights are here: the error is one sentence about them."""
    with pytest.raises(UpstreamMissingError, match="needs"):
        load_upstream(name, Sources())
