"""From what a reader finds on each frame to tracks of objects: linking, joining, and parting what changes its class.

Peaks are first linked from frame to frame by place. A link whose class plainly changes on the way is cut there, for it
is two objects, one gone and one come. Then links of one class that are never seen together are joined: it is the same
object that was away, or that jumped. Legend: F frames, h w of the heatmap, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.rewards.reading import SeenTrack

Floats = NDArray[np.float32]

_FAINT = 0.25  # a peak below it is no object's
_MOST = 6  # peaks of a frame
_REACH = 0.75  # an object moves by less than so many of its sizes between frames it is seen on
_FORGET = 3  # frames after which a link that was lost is not taken up by place alone
_PARTING = 3.0  # nats a frame's worth of evidence, times the shorter side's frames: a change of class and no flicker
_LEAST_LOG = -6.0  # one frame's verdict on a class is never surer than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """One object on one frame: centre and size in fractions of the frame, score 0 to 1, log-probabilities [K]."""

    frame: int
    x: float
    y: float
    size: float
    score: float
    classes: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundObject:
    """A linked object: probabilities [K] of its class over all its frames, its track, and how sure it is there."""

    classes: Floats
    track: SeenTrack
    confidence: float


def peaks(heat: Floats, classes: Floats, box: Floats) -> list[list[Peak]]:
    """The peaks of each frame: `heat` [F, h, w] in [0, 1], `classes` log-probabilities [F, h, w, K], `box` as in Maps.

    A peak is the highest of its 3 x 3 places; two that lie closer than 0.4 of their size are one.
    """
    _, h, w = heat.shape
    wide = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    around = np.max([wide[:, dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)], axis=0)
    found: list[list[Peak]] = [[] for _ in heat]
    rows = np.argwhere((heat >= around) & (heat > _FAINT))
    for frame, row, column in sorted(rows.tolist(), key=lambda at: -heat[tuple(at)]):
        dx, dy, log_size = box[frame, row, column].tolist()
        peak = Peak(
            frame=frame,
            x=(column + 0.5 + dx) / w,
            y=(row + 0.5 + dy) / h,
            size=float(np.exp(np.clip(log_size, -3, 5))) / w,
            score=float(heat[frame, row, column]),
            classes=classes[frame, row, column],
        )
        if len(found[frame]) < _MOST and all(_apart(peak, other) > 0.4 for other in found[frame]):
            found[frame].append(peak)
    return found


def _apart(a: Peak, b: Peak) -> float:
    """The distance of two peaks in units of the larger one's size."""
    return float(np.hypot(a.x - b.x, a.y - b.y)) / max(a.size, b.size, 1e-3)


def _linked(frames: list[list[Peak]]) -> list[list[Peak]]:
    """Peaks chained over frames by place, nearest pairs first."""
    links: list[list[Peak]] = []
    for index, found in enumerate(frames):
        free = list(found)
        alive = [link for link in links if index - link[-1].frame <= _FORGET]
        pairs = sorted(
            ((_apart(link[-1], peak), i, j) for i, link in enumerate(alive) for j, peak in enumerate(free)),
        )
        used_links: set[int] = set()
        used_peaks: set[int] = set()
        for distance, i, j in pairs:
            if distance <= _REACH and i not in used_links and j not in used_peaks:
                alive[i].append(free[j])
                used_links.add(i)
                used_peaks.add(j)
        links.extend([peak] for j, peak in enumerate(free) if j not in used_peaks)
    return links


def _evidence(link: list[Peak]) -> Floats:
    """Log-probabilities [len, K], weighted by how plainly each frame shows the object."""
    scores = np.array([p.score for p in link], np.float32)[:, None]
    return np.maximum(np.stack([p.classes for p in link]), _LEAST_LOG) * scores


def _parted(link: list[Peak]) -> list[list[Peak]]:
    """The link cut where its class changes, or whole."""
    if len(link) < 4:
        return [link]
    running = np.cumsum(_evidence(link), axis=0)
    before, after = running[1:-2], running[-1] - running[1:-2]
    gain = before.max(1) + after.max(1) - running[-1].max()
    cut = int(gain.argmax()) + 2
    shorter = min(cut, len(link) - cut)
    if gain[cut - 2] < _PARTING * min(shorter, 4) or before[cut - 2].argmax() == after[cut - 2].argmax():
        return [link]
    return [*_parted(link[:cut]), *_parted(link[cut:])]


def _joined(links: list[list[Peak]]) -> list[list[Peak]]:
    """Links of one class that share no frame, joined, the longest first."""
    done: list[tuple[int, list[Peak]]] = []
    for link in sorted(links, key=len, reverse=True):
        name = int(_evidence(link).sum(0).argmax())
        frames = {p.frame for p in link}
        for other_name, other in done:
            if name == other_name and frames.isdisjoint(p.frame for p in other):
                other.extend(link)
                break
        else:
            done.append((name, list(link)))
    return [sorted(link, key=lambda p: p.frame) for _, link in done]


def _found(link: list[Peak], num_frames: int) -> FoundObject:
    """A link as an object: its places are interpolated over frames on which it is not seen."""
    evidence = _evidence(link).sum(0)
    # Neighbouring frames tell much the same, so that all of them count as about four.
    sure = evidence * min(1.0, 4 / len(link))
    classes = np.exp(sure - sure.max())
    at, every = [p.frame for p in link], np.arange(num_frames)
    x, y, size = (np.interp(every, at, [getattr(p, v) for p in link]).astype(np.float32) for v in ("x", "y", "size"))
    presence = np.zeros(num_frames, np.float32)
    presence[at] = [p.score for p in link]
    ranked = np.sort(presence)[::-1][: max(1, num_frames // 3)]
    return FoundObject(
        classes=(classes / classes.sum()).astype(np.float32),
        track=SeenTrack(x=x, y=y, size=size, presence=presence),
        confidence=float(ranked.mean()),
    )


def tracks(heat: Floats, classes: Floats, box: Floats) -> list[FoundObject]:
    """All objects of a film, by falling confidence; arguments as of `peaks`.

    Confidence is the mean score of the best third of all frames: an object that is seen on fewer is hardly one.
    """
    links = [part for link in _linked(peaks(heat, classes, box)) for part in _parted(link)]
    found = [_found(link, len(heat)) for link in _joined(links)]
    return sorted(found, key=lambda f: -f.confidence)
