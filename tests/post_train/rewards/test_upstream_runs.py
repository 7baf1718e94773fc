"""Upstream scorers' own code on random weights, in their own environment, behind our service and over real HTTP.

Their pins exclude ours, so they need an interpreter of their own: name it in RUSHES_UPSTREAM_PYTHON. It must have hpsv3
1.0.0 with transformers 4.45.2 and trl 0.9.6, or vbench 0.1.5 with decord, and what our service imports.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from post_train.data.diorama.world import make_clip
from post_train.rewards.base import Dimension, Film, scored
from post_train.rewards.remote import RemoteReward

_PYTHON = os.environ.get("RUSHES_UPSTREAM_PYTHON")
_HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(_PYTHON is None, reason="RUSHES_UPSTREAM_PYTHON names no interpreter with upstream scorers"),
]


def _upstream(*arguments: str) -> list[str]:
    assert _PYTHON is not None
    return [_PYTHON, "-W", "ignore", *arguments]


@contextmanager
def _served(*arguments: str) -> Iterator[str]:
    command = _upstream("-m", "post_train.rewards.service", *arguments, "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            yield next(line for line in lines if " at http" in line).split(" at ")[-1].strip()
        finally:
            process.terminate()


def _films(count: int, side: int) -> list[Film]:
    clips = [make_clip(i, side=side, num_frames=9) for i in range(count)]
    return [Film(name=str(c.seed), prompt=c.captions.full.text, frames=c.frames, fps=8) for c in clips]


def test_hpsv3_scores_over_http(tmp_path: Path) -> None:
    """Its own inference code gives each film a score and a deviation near exp(0), and gives them again."""
    subprocess.run(_upstream(str(_HERE / "tiny_hpsv3.py"), str(tmp_path / "tiny")), check=True)
    weights, config = (str(tmp_path / "tiny" / name) for name in ("tiny.safetensors", "tiny.yaml"))
    with _served("--reward", "hpsv3", "--weights", weights, "--config", config) as url:
        reward = RemoteReward(url)
        films = _films(2, 64)
        first, again = scored(reward, films), scored(reward, films)
        reward.close()
    assert reward.dimension is Dimension.VISUAL_QUALITY
    assert first == again
    assert first[0].value != first[1].value
    assert all(s.value >= s.parts["mean_of_all"] and 0.5 < s.noise < 2 for s in first)


def test_vbench_tells_motion_over_http(tmp_path: Path) -> None:
    """Its own motion smoothness and dynamic degree, by RAFT and AMT-S of random weights, on a lossless film."""
    subprocess.run(_upstream(str(_HERE / "random_vbench.py"), str(tmp_path)), check=True)
    with _served("--reward", "vbench-mq", "--weights", str(tmp_path)) as url:
        reward = RemoteReward(url)
        (score,) = scored(reward, _films(1, 128))
        reward.close()
    assert reward.dimension is Dimension.MOTION_QUALITY
    assert 0 < score.parts["motion_smoothness"] < 1
    assert score.parts["dynamic_degree"] in {0.0, 1.0}
    assert score.value == sum(score.parts.values()) / 2
