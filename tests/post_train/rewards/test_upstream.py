"""What our adapters make of upstream scores: aggregation over frames, noise, and which part is the value.

The scorers themselves are not here: what they give is written down from their sources, what we make of it is tested.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from post_train.rewards.base import Dimension, RewardError
from post_train.rewards.upstream import HPSv3, VBench, VideoAlign, mean_of_best
from tests.post_train.rewards.serving import film


@pytest.mark.parametrize(
    ("values", "best", "which"),
    [
        ([1.0], 1.0, [0]),
        ([3.0, 1.0, 2.0], 3.0, [0]),
        ([float(i) for i in range(10)], 8.0, [9, 8, 7]),
        ([5.0, 5.0, 5.0, 5.0], 5.0, [0]),
    ],
)
def test_the_best_third_counts(values: list[float], best: float, which: list[int]) -> None:
    """The mean of the best 30 % of frames, at least one."""
    assert mean_of_best(values) == (best, which)


def test_hpsv3_is_the_mean_of_the_best_frames() -> None:
    """Of eight frames the two best count, with the mean of their deviations as noise."""

    class Logits:
        asked = 0

        def reward(self, images: list[Any], prompts: list[str]) -> np.ndarray:
            assert prompts == ["prompt of a"] * len(images)
            assert images[0].size == (32, 32)
            rows = range(self.asked, self.asked + len(images))
            self.asked += len(images)
            return np.array([[i, math.log(0.5 + 0.1 * i)] for i in rows])

    (score,) = HPSv3(Logits(), "d").score([film("a")])
    assert score.value == pytest.approx(6.5)
    assert score.noise == pytest.approx((1.1 + 1.2) / 2)
    assert score.parts == {"mean_of_all": pytest.approx(3.5)}


def test_hpsv3_with_a_frame_missing_is_an_error() -> None:
    """Fewer rows than frames is no shorter film."""

    class TooFew:
        def reward(self, images: list[Any], _prompts: list[str]) -> np.ndarray:
            return np.zeros((len(images) - 1, 2))

    with pytest.raises(RewardError, match="6 rows of logits for 8 frames"):
        HPSv3(TooFew(), "d").score([film("a")])


@pytest.mark.parametrize("dimension", list(Dimension))
def test_videoalign_gives_the_dimension_it_is_asked_for(dimension: Dimension) -> None:
    """The film is handed over as a file that is there, and the dimension's own score is the value."""

    class Inference:
        def reward(self, paths: list[str], prompts: list[str], *, use_norm: bool) -> list[dict[str, float]]:
            assert Path(paths[0]).is_file()
            assert use_norm
            assert prompts == ["prompt of a"]
            return [{"VQ": 1.0, "MQ": 2.0, "TA": 3.0, "Overall": 6.0}]

    (score,) = VideoAlign(Inference(), "d", dimension).score([film("a")])
    assert score.value == {"vq": 1.0, "mq": 2.0, "ta": 3.0}[dimension.value]
    assert score.parts["overall"] == 6.0


def test_vbench_tells_motion_by_two_measures(tmp_path: Path) -> None:
    """Smoothness alone, which a frozen film wins, is never the value."""

    class Bench:
        def evaluate(self, **asked: Any) -> None:
            assert asked["mode"] == "custom_input"
            found = {name: [0.25 * (i + 1), []] for i, name in enumerate(asked["dimension_list"])}
            (tmp_path / f"{asked['name']}_eval_results.json").write_text(json.dumps(found))

    (score,) = VBench(Bench(), tmp_path, "d", Dimension.MOTION_QUALITY).score([film("a")])
    assert score.parts == {"motion_smoothness": 0.25, "dynamic_degree": 0.5}
    assert score.value == 0.375
