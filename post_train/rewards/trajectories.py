"""How plausible the tracks of a reading are: jumps, trembling, absences, doubles, and objects that never stir.

Legend: F frames.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from post_train.rewards.reading import SeenObject, SeenTrack

Floats = NDArray[np.float32]

_SEEN = 0.4  # of the track's own best presence: below it the object is not on that frame
_CUT = 0.4  # of its size: an object whose centre is nearer to the frame's edge is on its way in or out
_SIZE = 0.6
_FALLING = 0.02  # sides a frame: what falls faster and then rises has met the ground


def seen_on(track: SeenTrack) -> NDArray[np.bool_]:
    """On which frames the object is there, bool [F], against its presence on its best third of them."""
    best = np.sort(track.presence)[-max(1, len(track.presence) // 3) :].mean()
    return track.presence > _SEEN * best


def _place(track: SeenTrack) -> NDArray[np.float64]:
    """Where the object is and how large, [F, 3]; readers err more in size than in place, so it counts for less."""
    return np.stack([track.x, track.y, _SIZE * track.size], 1).astype(np.float64)


def surprises(track: SeenTrack) -> Floats:
    """Of each step how far it is from what the motion before and the motion after it foretell, in sides, [F - 1].

    The nearer of the two counts, which spares a bounce: the motion after the contact foretells it. Where the contact
    falls between two frames, the vertical part of the step is spared. 0 where the object is not on both frames, or the
    steps around are not known.
    """
    place = _place(track)
    seen = seen_on(track)
    step = np.diff(place, axis=0)
    whole = seen[1:] & seen[:-1]
    amount = np.full((2, len(step)), np.inf)
    for k in np.flatnonzero(whole):
        spared = np.array([1.0, 0.0 if _lands(step, int(k)) else 1.0, 1.0])
        for way, other in enumerate((k - 1, k + 1)):
            if 0 <= other < len(step) and whole[other]:
                amount[way, k] = np.linalg.norm((step[k] - step[other]) * spared)
    least = amount.min(0)
    return np.where(np.isfinite(least), least, 0.0).astype(np.float32)


def _lands(step: NDArray[np.float64], k: int) -> bool:
    """Whether step `k` joins a fall to a rise and is no longer than they are."""
    if not 0 < k < len(step) - 1:
        return False
    before, after = step[k - 1, 1], step[k + 1, 1]
    return before > _FALLING and after < -_FALLING and abs(step[k, 1]) <= 1.2 * max(before, -after)


def tremor(track: SeenTrack) -> float:
    """The median size of the third differences of place and size, in sides of the frame: jerk without its outliers."""
    place = _place(track)[seen_on(track)]
    if len(place) < 4:
        return 0.0
    return float(np.median(np.linalg.norm(np.diff(place, n=3, axis=0), axis=1)))


def absent_share(track: SeenTrack) -> float:
    """The share of frames on which the object is missing; none where it comes in or goes out through the edge."""
    seen = np.flatnonzero(seen_on(track))
    gone = len(track.x) - len(seen)
    first, last = int(seen[0]), int(seen[-1])
    if _near_edge(track, first):
        gone -= first
    if _near_edge(track, last):
        gone -= len(track.x) - 1 - last
    return gone / len(track.x)


def _near_edge(track: SeenTrack, frame: int) -> bool:
    reach = _CUT * track.size[frame]
    x, y = track.x[frame], track.y[frame]
    return bool(min(x, y) < reach or max(x, y) > 1 - reach)


def doubled_share(objects: tuple[SeenObject, ...]) -> float:
    """The share of frames on which two objects of one class and colour are seen: this world shows one of each."""
    twice = [
        float((seen_on(a.track) & seen_on(b.track)).mean())
        for a, b in combinations(objects, 2)
        if a.name == b.name and a.colour == b.colour
    ]
    return max(twice, default=0.0)


def travel(track: SeenTrack) -> float:
    """How far the track ranges in x, y or size, whichever is greatest, in sides of the frame."""
    seen = seen_on(track)
    return max(float(np.ptp(v[seen])) for v in (track.x, track.y, track.size))


def boxes(objects: tuple[SeenObject, ...], height: int, width: int, *, reach: float) -> NDArray[np.bool_]:
    """Where objects are on each frame, bool [F, H, W]: squares of `reach` times their size."""
    count = len(objects[0].track.x)
    covered = np.zeros((count, height, width), bool)
    for thing in objects:
        track, seen = thing.track, seen_on(thing.track)
        for frame in np.flatnonzero(seen):
            half = reach * track.size[frame] / 2
            top, bottom = (round(float(v) * height) for v in (track.y[frame] - half, track.y[frame] + half))
            left, right = (round(float(v) * width) for v in (track.x[frame] - half, track.x[frame] + half))
            covered[frame, max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return covered
