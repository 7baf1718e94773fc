"""Linking what is found on single frames to tracks of objects, on heatmaps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from post_train.rewards.reader_tracks import FoundObject, tracks

FRAMES, SIDE, CLASSES = 17, 16, 5


class _Canvas:
    """A film's maps in the making."""

    def __init__(self) -> None:
        self.heat = np.full((FRAMES, SIDE, SIDE), 0.01, np.float32)
        self.classes = np.full((FRAMES, SIDE, SIDE, CLASSES), np.log(0.02), np.float32)
        self.box = np.zeros((FRAMES, SIDE, SIDE, 3), np.float32)

    def draw(self, frame: int, name: int, x: float, y: float, *, size: float = 0.3, score: float = 0.9) -> None:
        """An object centred at (x, y) on one frame, with the blur that a network leaves around it."""
        column, row = int(x * SIDE), int(y * SIDE)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                r, c = row + dy, column + dx
                if 0 <= r < SIDE and 0 <= c < SIDE:
                    self.heat[frame, r, c] = max(self.heat[frame, r, c], score * 0.6 ** (abs(dx) + abs(dy)))
                    self.classes[frame, r, c] = np.log(0.02)
                    self.classes[frame, r, c, name] = np.log(0.92)
                    self.box[frame, r, c] = x * SIDE - c - 0.5, y * SIDE - r - 0.5, np.log(size * SIDE)

    def found(self) -> list[FoundObject]:
        return tracks(self.heat, self.classes, self.box)


def _names(found: list[FoundObject]) -> list[int]:
    return [int(f.classes.argmax()) for f in found]


def test_an_empty_film_has_no_objects() -> None:
    """Faint heat everywhere is nobody's."""
    assert _Canvas().found() == []


def test_a_moving_object_is_one_track_at_its_place() -> None:
    """Places and sizes come back to a hundredth of the frame, present throughout."""
    canvas, path = _Canvas(), np.linspace(0.25, 0.75, FRAMES)
    for frame, x in enumerate(path):
        canvas.draw(frame, 2, float(x), 0.6)
    (only,) = canvas.found()
    assert _names([only]) == [2]
    assert np.abs(only.track.x - path).max() < 0.01
    assert np.abs(only.track.y - 0.6).max() < 0.01
    assert np.abs(only.track.size - 0.3).max() < 0.01
    assert only.track.presence.min() > 0.85
    assert only.confidence == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("gone", [range(5, 8), range(4, 13), range(9, FRAMES)])
def test_an_object_that_vanishes_is_one_track_with_a_gap(gone: range) -> None:
    """Presence is zero exactly where it is gone, and its place is carried over the gap."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        if frame not in gone:
            canvas.draw(frame, 1, 0.3 + 0.02 * frame, 0.5)
    (only,) = canvas.found()
    assert [f for f in range(FRAMES) if only.track.presence[f] == 0] == list(gone)
    assert np.abs(np.diff(only.track.x)).max() < 0.05


def test_a_teleport_is_one_track_that_jumps() -> None:
    """The same class that is gone here and come there is the same object."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        canvas.draw(frame, 3, 0.2 if frame < 8 else 0.8, 0.5, size=0.2)
    (only,) = canvas.found()
    assert np.abs(np.diff(only.track.x)).max() == pytest.approx(0.6, abs=0.01)
    assert only.track.presence.min() > 0.5


def test_a_doubled_object_is_two_tracks_of_one_class() -> None:
    """Two that are seen on the same frames are two, even if one comes late."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        canvas.draw(frame, 1, 0.25, 0.5)
        if frame >= 6:
            canvas.draw(frame, 1, 0.75, 0.5)
    found = canvas.found()
    assert _names(found) == [1, 1]
    late = min(found, key=lambda f: f.track.presence[0])
    assert [f for f in range(FRAMES) if late.track.presence[f] == 0] == list(range(6))


def test_two_classes_that_pass_each_other_stay_themselves() -> None:
    """Objects that cross keep their classes."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        canvas.draw(frame, 0, 0.15 + 0.04 * frame, 0.3, size=0.2)
        canvas.draw(frame, 4, 0.85 - 0.04 * frame, 0.7, size=0.2)
    assert sorted(_names(canvas.found())) == [0, 4]


def test_a_morph_is_two_objects_each_on_its_frames() -> None:
    """Where the class changes for good, one object goes and another comes."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        canvas.draw(frame, 0 if frame < 9 else 4, 0.5, 0.5)
    found = sorted(canvas.found(), key=lambda f: int(f.classes.argmax()))
    assert _names(found) == [0, 4]
    assert [float(f.track.presence[8]) > 0.5 for f in found] == [True, False]
    assert [float(f.track.presence[9]) > 0.5 for f in found] == [False, True]


def test_a_flicker_of_the_class_is_no_morph() -> None:
    """One frame read wrongly neither parts a track nor changes its class."""
    canvas = _Canvas()
    for frame in range(FRAMES):
        canvas.draw(frame, 3 if frame == 7 else 0, 0.5, 0.5)
    assert _names(canvas.found()) == [0]


def test_a_glimpse_is_hardly_an_object() -> None:
    """What shows on one frame of seventeen stays far below the confidence of an object."""
    canvas = _Canvas()
    canvas.draw(4, 0, 0.5, 0.5, score=0.95)
    (only,) = canvas.found()
    assert only.confidence < 0.25
