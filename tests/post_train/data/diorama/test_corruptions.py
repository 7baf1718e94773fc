"""Corruptions promise known harm: what is changed, what is left alone, and the same from the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from post_train.data.diorama.corruptions import CORRUPTIONS, LOOKS, UNSEEN_LOOKS, Corruption, named_corruption
from post_train.data.diorama.corruptions.untrue import DIRECTED
from post_train.data.diorama.record import Clip, Split
from post_train.data.diorama.vocabulary import Camera, Weather
from post_train.data.diorama.world import make_clip
from post_train.rewards.base import Dimension

CLIPS = [make_clip(seed) for seed in range(24)]


def _of(name: str, clip: Clip, strength: float = 0.7, seed: int = 0) -> np.ndarray | None:
    return named_corruption(name).of(clip, strength, np.random.default_rng(seed))


def _harmed(name: str, strength: float = 0.7) -> list[tuple[Clip, np.ndarray]]:
    pairs = [(clip, _of(name, clip, strength, clip.seed)) for clip in CLIPS]
    return [(clip, frames) for clip, frames in pairs if frames is not None]


def _changed(clip: Clip, frames: np.ndarray) -> np.ndarray:
    """The mean change of each frame, float [F]."""
    return np.abs(frames.astype(int) - clip.frames).mean((1, 2, 3))


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_each_harms_and_repeats(corruption: Corruption) -> None:
    """Frames keep shape and type, differ from the true ones, are made anew equal, and the clip itself is untouched."""
    harmed = 0
    for clip in CLIPS:
        before = clip.frames.copy()
        first, again = (corruption.of(clip, 0.6, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(clip.frames, before)
        if first is None or again is None:
            assert first is again
            continue
        harmed += 1
        assert first.shape == clip.frames.shape
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)
        assert not np.array_equal(first, clip.frames)
    assert harmed


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
@pytest.mark.parametrize(("side", "num_frames"), [(32, 5), (96, 33)])
def test_any_size_is_harmed(corruption: Corruption, side: int, num_frames: int) -> None:
    """Nothing assumes 64 pixels or 17 frames, at either end of the strength."""
    clip = make_clip(3, side=side, num_frames=num_frames, split=Split.WILD)
    for strength in (0.01, 1.0):
        frames = corruption.of(clip, strength, np.random.default_rng(1))
        assert frames is None or frames.shape == clip.frames.shape


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_strength_is_bounded(strength: float) -> None:
    """A strength outside (0, 1] is the caller's mistake, told with its value."""
    with pytest.raises(ValueError, match="strength lies in"):
        _of("noise", CLIPS[0], strength)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """The sentence lists what there is."""
    with pytest.raises(ValueError, match=r"'smear' is unknown; there are frozen"):
        named_corruption("smear")


@pytest.mark.parametrize("name", LOOKS | UNSEEN_LOOKS)
def test_stronger_looks_are_farther_from_the_truth(name: str) -> None:
    """Over many clips the error grows with the strength: they are graded in fact."""
    errors = [np.mean([_changed(c, f).mean() for c, f in _harmed(name, s)]) for s in (0.15, 0.5, 1.0)]
    assert errors[0] < errors[1] < errors[2], errors


def test_some_of_each_dimension_are_kept_out() -> None:
    """Every dimension has corruptions to train on and others that no judge may be trained on."""
    for dimension in Dimension:
        kept = {c.kept_out for c in CORRUPTIONS.values() if dimension in c.hurts}
        assert kept == {True, False}
    assert not set(LOOKS) & set(UNSEEN_LOOKS)
    assert all(CORRUPTIONS[n].kept_out for n in UNSEEN_LOOKS)


def test_a_wholly_frozen_clip_never_moves() -> None:
    """At strength 1 every frame is the first; at one half, half of the film still plays."""
    for clip in CLIPS:
        frames = _of("frozen", clip, 1.0)
        assert frames is not None
        assert np.array_equal(frames, np.broadcast_to(clip.frames[0], frames.shape))
        half = _of("frozen", clip, 0.5)
        assert half is not None
        assert np.array_equal(half[:9], clip.frames[:9])
        assert np.array_equal(half[9:], np.broadcast_to(clip.frames[8], half[9:].shape))


def test_only_directed_motion_is_played_backwards() -> None:
    """A clip of spins, bounces and sways looks alike both ways, so there is nothing to falsify."""
    for clip in CLIPS:
        directed = any(o.action in DIRECTED for o in clip.scene.objects)
        frames = _of("backwards", clip)
        assert (frames is not None) is directed
        assert frames is None or np.array_equal(frames, clip.frames[::-1])


@pytest.mark.parametrize("name", ["wrong_colour", "replaced", "removed"])
def test_an_object_is_changed_and_the_sky_is_not(name: str) -> None:
    """What is changed lies where objects are: on most of the picture's pixels nothing happens."""
    for clip, frames in _harmed(name):
        touched = (np.abs(frames.astype(int) - clip.frames).sum(-1) > 0).mean()
        assert 0.005 < touched < 0.5


@pytest.mark.parametrize("name", ["teleport", "morph"])
def test_the_clip_is_true_until_it_breaks(name: str) -> None:
    """The first and last of it are right and wrong, and the break lies in between."""
    for clip, frames in _harmed(name, 1.0):
        wrong = _changed(clip, frames) > 0
        first = int(np.argmax(wrong))
        assert 3 <= first <= 14
        assert wrong[first:].all()


@pytest.mark.parametrize("name", ["vanish", "doubling"])
def test_what_vanishes_comes_back(name: str) -> None:
    """One run of at least two frames is wrong, the first two and the last two are true."""
    for clip, frames in _harmed(name):
        wrong = np.flatnonzero(_changed(clip, frames) > 0)
        assert len(wrong) >= 2
        assert np.array_equal(wrong, np.arange(wrong[0], wrong[-1] + 1))
        assert wrong[0] >= 2
        assert wrong[-1] <= 14


@pytest.mark.parametrize(("strength", "moved"), [(0.1, 4), (0.5, 8), (1.0, 17)])
def test_shuffling_moves_the_frames_it_says(strength: float, moved: int) -> None:
    """The frames are the same ones, and the share that `strength` says are all elsewhere."""
    clip = next(c for c in CLIPS if c.scene.objects[0].action.value.startswith("move"))
    frames = _of("shuffle", clip, strength)
    assert frames is not None
    assert sorted(f.tobytes() for f in frames) == sorted(f.tobytes() for f in clip.frames)
    assert int((_changed(clip, frames) > 0).sum()) == moved


@pytest.mark.parametrize(("name", "silent"), [("wrong_weather", "weather"), ("wrong_camera", "camera")])
def test_what_no_caption_tells_makes_none_untrue(name: str, silent: str) -> None:
    """Of fair weather and a static camera captions say nothing, so that rain or a pan there is no untruth."""
    for clip in CLIPS:
        told = getattr(clip.scene.scenery if silent == "weather" else clip.scene, silent)
        harmed = named_corruption(name).of(clip, 1.0, np.random.default_rng(0))
        assert (harmed is None) == (told in {Weather.NONE, Camera.STATIC})
