"""Flow finds known motion, and VBench's formulas give what they give by hand."""

from __future__ import annotations

import numpy as np
import pytest

from post_train.data.diorama.corruptions import named_corruption
from post_train.data.diorama.world import make_clip
from post_train.rewards.flow import (
    dense_flow,
    moves,
    temporal_flickering,
    top_speeds,
    vbench_motion,
    warp_residual,
    warped_back,
)


def _texture(side: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture that a flow can hold on to, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (side // 4, side // 4, 3))
    return np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)


def _sliding(step: int, frames: int = 6) -> np.ndarray:
    """A textured picture that slides `step` pixels to the right a frame, without an edge."""
    return np.stack([np.roll(_texture(64), step * i, axis=1) for i in range(frames)])


@pytest.mark.parametrize("step", [0, 1, 2, 4])
def test_flow_is_the_motion(step: int) -> None:
    """The median flow of a picture that slides is how far it slides, to a fifth of a pixel."""
    flow = dense_flow(_sliding(step))
    assert flow.shape == (5, 64, 64, 2)
    assert np.median(flow[..., 0]) == pytest.approx(step, abs=0.2)
    assert np.median(flow[..., 1]) == pytest.approx(0, abs=0.2)


def test_a_warp_brings_back_what_moved() -> None:
    """What slides is explained by its flow nearly everywhere; without the flow it is not."""
    frames = _sliding(2)
    flow = dense_flow(frames)
    explained = warp_residual(frames, flow)[:, 8:-8, 8:-8]
    unexplained = warp_residual(frames, flow * 0)[:, 8:-8, 8:-8]
    assert explained.mean() < 0.3 * unexplained.mean()
    assert np.array_equal(warped_back(frames, flow * 0), frames[1:])


def test_the_fastest_twentieth_counts() -> None:
    """Of 400 pixels the 20 fastest are averaged, whatever the others do."""
    flow = np.zeros((1, 20, 20, 2), np.float32)
    flow[0, 0] = (3, 4)
    assert top_speeds(flow) == pytest.approx([5.0])
    flow[0, 1] = (3, 4)
    assert top_speeds(flow) == pytest.approx([5.0])
    flow[0, :2, ::2] = 0
    assert top_speeds(flow) == pytest.approx([5.0])
    flow[0, :2, ::4] = 0
    flow[0, :2, 1::4] = 0
    assert top_speeds(flow) < 5.0


@pytest.mark.parametrize(
    ("fast", "pairs", "dynamic"),
    # Of 17 sampled frames round(4.25) = 4 pairs must be fast, of 16 four, of 10 round(2.5) = 2, of 2 round(0.5) = 0.
    [(4, 16, True), (3, 16, False), (4, 15, True), (3, 15, False), (2, 9, True), (1, 9, False), (0, 1, True)],
)
def test_enough_pairs_must_move(fast: int, pairs: int, *, dynamic: bool) -> None:
    """A film moves when round(4 n / 16) of its pairs are faster than 6 / 256 of its shorter side."""
    threshold = 6 * 64 / 256
    speeds = np.full(pairs, threshold, np.float32)
    speeds[:fast] = threshold + 0.01
    assert moves(speeds, 64) is dynamic


def test_one_frame_does_not_move() -> None:
    """Where there is no pair there is no motion."""
    assert moves(np.zeros(0, np.float32), 64) is False


def test_flicker_by_hand() -> None:
    """(255 - mean difference) / 255: alike frames give 1, black and white in turn give 0."""
    black = np.zeros((4, 32, 32, 3), np.uint8)
    assert temporal_flickering(black) == 1.0
    flashing = black.copy()
    flashing[1::2] = 255
    assert temporal_flickering(flashing) == 0.0
    grey = black.copy()
    grey[1::2] = 51
    assert temporal_flickering(grey) == pytest.approx(0.8)


def test_eight_frames_a_second_are_looked_at() -> None:
    """A film at 24 frames a second is judged by every third frame, so that its speed is that of its world."""
    slow = np.repeat(_sliding(2, 6), 3, axis=0)
    assert vbench_motion(slow, 24) == vbench_motion(slow[::3], 8).__class__(
        temporal_flickering=temporal_flickering(slow), dynamic_degree=vbench_motion(slow[::3], 8).dynamic_degree
    )


def test_a_frozen_clip_has_no_flicker_and_no_motion() -> None:
    """The two are told together, for a frozen film is perfect by the one and nothing by the other."""
    clip = next(c for c in map(make_clip, range(50)) if c.scene.objects[0].action.value == "move_left")
    frozen = named_corruption("frozen").of(clip, 1.0, np.random.default_rng(0))
    assert frozen is not None
    told = vbench_motion(frozen, 8)
    assert (told.temporal_flickering, told.dynamic_degree) == (1.0, 0.0)
    assert vbench_motion(clip.frames, 8).dynamic_degree == 1.0


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (8, 16, 64, 3), (8, 64, 64)])
def test_what_has_no_flow_is_refused(shape: tuple[int, ...]) -> None:
    """One frame, tiny frames or another layout are told in a sentence."""
    with pytest.raises(ValueError, match="flow needs at least 2 frames"):
        dense_flow(np.zeros(shape, np.uint8))
