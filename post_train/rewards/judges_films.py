"""Which films a judge can read, and how they are brought to what it was trained at: size, and number of frames.

Legend: F frames, H W frame size.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.rewards.reading import SeenTrack

_LEAST_FRAMES = 5
_MOST_FRAMES = 33  # the longest that judges are trained on; of longer films as many frames are read, evenly spread


class JudgeError(ValueError):
    """A judge is missing or damaged, or cannot read what it is given."""


def check_film(film: NDArray[np.uint8]) -> None:
    """JudgeError unless `film` is uint8 [F, H, W, 3] with at least 5 frames of at least 32 pixels."""
    if film.dtype != np.uint8 or film.ndim != 4 or film.shape[3] != 3:
        raise JudgeError(f"a film is uint8 [frames, height, width, 3], not {film.dtype} {list(film.shape)}")
    if len(film) < _LEAST_FRAMES or min(film.shape[1:3]) < 32:
        raise JudgeError(
            f"a film needs {_LEAST_FRAMES} frames of 32 pixels or more to be read, not {len(film)} frames of "
            f"{film.shape[2]}x{film.shape[1]}"
        )


def fitted(film: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The frames that are read of a film, the shorter side at `side` pixels and both multiples of 8."""
    film = film[_picks(len(film))]
    _, h, w, _ = film.shape
    scale = side / min(h, w)
    size = (max(8, round(w * scale / 8) * 8), max(8, round(h * scale / 8) * 8))
    if size == (w, h):
        return film
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, size, interpolation=way) for f in film]).astype(np.uint8)


def _picks(num_frames: int) -> NDArray[np.intp]:
    """The frames that are read of a film."""
    if num_frames <= _MOST_FRAMES:
        return np.arange(num_frames)
    return np.linspace(0, num_frames - 1, _MOST_FRAMES).round().astype(np.intp)


def on_all_frames(track: SeenTrack, num_frames: int) -> SeenTrack:
    """A track that was read off a film's picked frames, on all of them.

    Places are interpolated, presence is that of the nearest frame that was read.
    """
    picks, every = _picks(num_frames), np.arange(num_frames)
    if len(picks) == num_frames:
        return track
    nearest = np.abs(every[:, None] - picks).argmin(1)
    x, y, size = (np.interp(every, picks, v).astype(np.float32) for v in (track.x, track.y, track.size))
    return SeenTrack(x=x, y=y, size=size, presence=track.presence[nearest])
