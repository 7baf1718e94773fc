"""What scraping does to pictures: a shaking camera and lossy compression, on some of the clips."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SHAKEN = 0.15
_COMPRESSED = 0.2


def _shake(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each frame a little off its place (at most 2 % of the side), as a hand would hold it."""
    side = frames.shape[1]
    shifts = rng.uniform(-0.02, 0.02, (len(frames), 2)) * side
    out = np.empty_like(frames)
    for i, (dx, dy) in enumerate(shifts):
        matrix = np.array([[1, 0, dx], [0, 1, dy]])
        out[i] = cv2.warpAffine(
            frames[i], matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return out


def _compress(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A JPEG round trip of each frame at one quality for the clip."""
    quality = int(rng.integers(35, 70))
    out = np.empty_like(frames)
    for i, frame in enumerate(frames):
        done, code = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None
        out[i] = decoded
    return out


def weather_the_web(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`frames` uint8 [F, S, S, 3] as they would come out of a crawl."""
    if rng.random() < _SHAKEN:
        frames = _shake(rng, frames)
    if rng.random() < _COMPRESSED:
        frames = _compress(rng, frames)
    return frames
