"""Tracks are plausible or not: what this world's motions do is spared, what breaks physics is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from post_train.data.diorama.record import Track
from post_train.data.diorama.world import make_clip
from post_train.rewards.reading import SeenObject, SeenTrack
from post_train.rewards.trajectories import absent_share, boxes, doubled_share, surprises, travel, tremor


def _seen(track: Track) -> SeenTrack:
    return SeenTrack(x=track.x, y=track.y, size=track.size, presence=np.full(len(track.x), 0.9, np.float32))


def _straight(frames: int = 17) -> SeenTrack:
    along = np.linspace(0.3, 0.7, frames, dtype=np.float32)
    half = np.full(frames, 0.5, np.float32)
    return SeenTrack(x=along, y=half, size=half * 0.5, presence=half * 1.8)


def _thing(track: SeenTrack, name: str = "cat", colour: str | None = None) -> SeenObject:
    return SeenObject(name=name, colour=colour, action=None, confidence=0.9, track=track)


@pytest.mark.parametrize("num_frames", [17, 33])
def test_the_worlds_own_motions_hold_no_surprise(num_frames: int) -> None:
    """Every action under every camera, fast bounces too, stays below 0.15 of the side and does not tremble."""
    for seed in range(150):
        for thing in make_clip(seed, side=32, num_frames=num_frames).scene.objects:
            track = _seen(thing.track)
            assert surprises(track).max() < 0.15, (seed, thing.action)
            assert tremor(track) < 0.03
            assert absent_share(track) == 0.0
            assert travel(track) > 0.05 or thing.action.value == "spin"


@pytest.mark.parametrize("at", [1, 5, 8, 12, 16])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_teleport_is_a_surprise_at_its_step(at: int, axis: str) -> None:
    """A quarter of the side to any direction shows with its size, wherever in the film it happens."""
    track = _straight()
    moved = getattr(track, axis).copy()
    moved[at:] -= 0.25
    found = surprises(replace(track, **{axis: moved}))
    assert found.max() == pytest.approx(0.25, abs=0.02)
    assert abs(int(found.argmax()) - (at - 1)) <= 1


def test_trembling_is_told_from_a_single_jump() -> None:
    """Noise on every frame trembles; one jump in a smooth track does not."""
    track = _straight()
    jumped = replace(track, x=np.where(np.arange(17) < 9, track.x, track.x - 0.3).astype(np.float32))
    noisy = replace(track, x=track.x + np.random.default_rng(0).normal(0, 0.04, 17).astype(np.float32))
    assert tremor(jumped) < 0.01
    assert tremor(noisy) > 0.05


def test_absence_is_counted() -> None:
    """Three of seventeen frames without the object; what leaves through the edge is not missing."""
    track = _straight()
    away = track.presence.copy()
    away[6:9] = 0
    assert absent_share(replace(track, presence=away)) == pytest.approx(3 / 17)
    gone = track.presence.copy()
    gone[12:] = 0
    assert absent_share(replace(track, presence=gone)) == pytest.approx(5 / 17)
    at_edge = replace(track, presence=gone, x=np.linspace(0.3, 1.3, 17, dtype=np.float32))
    assert absent_share(at_edge) == 0.0


def test_a_weak_but_even_presence_is_no_absence() -> None:
    """Presence is held against the object's own best frames: a faint object is not a flickering one."""
    track = _straight()
    assert absent_share(replace(track, presence=track.presence * 0.4)) == 0.0


def test_two_of_a_kind_are_a_double() -> None:
    """Of one class and colour, on the same frames; other colours and classes are other things."""
    there = _straight()
    half = replace(there, presence=np.where(np.arange(17) < 9, 0.9, 0).astype(np.float32))
    assert doubled_share((_thing(there), _thing(half))) == pytest.approx(9 / 17)
    assert doubled_share((_thing(there), _thing(there, "dog"))) == 0.0
    assert doubled_share((_thing(there, "ball", "red"), _thing(there, "ball", "blue"))) == 0.0
    assert doubled_share((_thing(there),)) == doubled_share(()) == 0.0


def test_boxes_lie_where_the_object_is() -> None:
    """A square of its size around its centre, cut at the frame's edge, and none where it is absent."""
    away = np.array([0.9, 0.9, 0.0, 0.9, 0.9], np.float32)
    flat = np.full(5, 0.5, np.float32)
    thing = _thing(SeenTrack(x=flat * 0, y=flat, size=flat, presence=away))
    covered = boxes((thing,), 40, 80, reach=1.0)
    assert covered.shape == (5, 40, 80)
    assert covered[0, 10:30, :20].all()
    assert covered[0].sum() == 20 * 20
    assert not covered[2].any()
