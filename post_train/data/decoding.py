"""Decodes a video file to the frames that a model trains on: at its rate, its size and its number of frames.

Legend: F pixel frames, H W pixel size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from engines.types import VideoSpec


class ClipError(ValueError):
    """A clip cannot be trained on; the message names it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


def decode_video(video: Path | bytes, spec: VideoSpec, *, name: str) -> NDArray[np.uint8]:
    """The first `spec.num_frames` frames at `spec.fps`, scaled to cover width x height and cropped at the centre.

    At each 1/fps second the frame that is on the screen is taken, so slower videos repeat and faster ones skip frames.
    Raises ClipError for what is no video, breaks off, or ends too soon.
    """
    source = io.BytesIO(video) if isinstance(video, bytes) else str(video)
    frames: list[NDArray[np.uint8]] = []
    seen, end = 0, 0.0
    previous: NDArray[np.uint8] | None = None
    try:
        with av.open(source) as container:
            for shown_from, lasts, picture in _pictures(container, name):
                seen, end = seen + 1, shown_from + lasts
                # Half a millisecond of grace: containers round time stamps.
                while previous is not None and len(frames) < spec.num_frames and _due(frames, spec) < shown_from - 5e-4:
                    frames.append(previous)
                if len(frames) == spec.num_frames:
                    break
                previous = fitted(picture, width=spec.width, height=spec.height)
    except (FFmpegError, ValueError, IndexError) as error:
        if isinstance(error, ClipError):
            raise
        raise ClipError(name, f"it cannot be decoded as a video: {error}") from None
    while previous is not None and len(frames) < spec.num_frames and _due(frames, spec) < end - 5e-4:
        frames.append(previous)
    if len(frames) < spec.num_frames:
        needed = (spec.num_frames - 1) / spec.fps
        raise ClipError(
            name,
            f"it is too short: {end:.2f} s in {seen} frames, and {spec.num_frames} frames at {spec.fps} a second "
            f"need more than {needed:.2f} s; leave it out or train on fewer frames",
        )
    return np.stack(frames)


def _due(frames: list[NDArray[np.uint8]], spec: VideoSpec) -> float:
    """When the next frame that is wanted is on the screen, in seconds from the first."""
    return len(frames) / spec.fps


def _pictures(container: Any, name: str) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """(seconds since the first, seconds it stays, uint8 [H, W, 3]) of every frame, turned as its maker meant it."""
    if not container.streams.video:
        raise ClipError(name, "it has no picture")
    stream = container.streams.video[0]
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    first: float | None = None
    for index, frame in enumerate(container.decode(stream)):
        at = float(frame.time) if frame.time is not None else index / (rate or 1)
        first = at if first is None else first
        lasts = float(frame.duration * frame.time_base) if frame.duration else (1 / rate if rate else 0.0)
        picture = frame.to_ndarray(format="rgb24")
        yield at - first, lasts, np.rot90(picture, k=round(frame.rotation / 90) % 4)


def fitted(picture: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """`picture` uint8 [h, w, 3] scaled until it covers width x height, and its centre: uint8 [height, width, 3]."""
    h, w, _ = picture.shape
    if (h, w) == (height, width):
        return np.ascontiguousarray(picture)
    scale = max(width / w, height / h)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(np.ascontiguousarray(picture), size, interpolation=how)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width]).astype(np.uint8)
