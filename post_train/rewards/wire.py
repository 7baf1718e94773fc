"""Films to and from the ways in which they travel to a reward, all lossless.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

import base64
import binascii
import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.rewards.base import Film
from post_train.rewards.schema import WireFilm

Frames = NDArray[np.uint8]

_MOST_PIXELS = 2000 * 1920 * 1088  # of a whole film, before anything is decoded further


class WireError(ValueError):
    """A film cannot be read as it was sent."""


class Transport(StrEnum):
    """How a client sends films."""

    PNG = "png"
    MP4 = "mp4"
    PATH = "path"


def mp4_bytes(frames: Frames, fps: int) -> bytes:
    """A lossless H.264 film (RGB, quantizer 0) of uint8 [F, H, W, 3]."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def mp4_frames(source: io.BytesIO | str) -> Frames:
    """All frames of a film, uint8 [F, H, W, 3]; WireError when it is none."""
    frames: list[Frames] = []
    pixels = 0
    try:
        with av.open(source, "r") as container:
            for frame in container.decode(video=0):
                pixels += frame.width * frame.height
                if pixels > _MOST_PIXELS:
                    raise WireError(f"the film has more than {_MOST_PIXELS} pixels; send a shorter or smaller one")
                frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise WireError(f"it is no film that can be decoded: {error}") from error
    if not frames:
        raise WireError("it holds no frame")
    return np.stack(frames)


def _png(frame: Frames) -> str:
    return base64.b64encode(cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(f"it is not base64: {error}") from error


def _png_frames(texts: list[str]) -> Frames:
    frames: list[Frames] = []
    for index, text in enumerate(texts):
        picture = cv2.imdecode(np.frombuffer(_decoded(text), np.uint8), cv2.IMREAD_COLOR) if text else None
        if picture is None:
            raise WireError(f"frame {index} is no PNG")
        if frames and picture.shape != frames[0].shape:
            raise WireError(f"frame {index} is {picture.shape}, the first is {frames[0].shape}; they must be alike")
        if picture.size // 3 * len(texts) > _MOST_PIXELS:
            raise WireError(f"the film has more than {_MOST_PIXELS} pixels; send a shorter or smaller one")
        frames.append(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8))
    return np.stack(frames)


@contextmanager
def on_wire(film: Film, transport: Transport, shared: Path | None) -> Iterator[WireFilm]:
    """`film` as it is sent; a file on the shared disk is removed in the end."""
    facts = {"name": film.name, "prompt": film.prompt, "fps": film.fps}
    if transport is Transport.PNG:
        yield WireFilm.model_validate({**facts, "png": [_png(f) for f in film.frames]})
    elif transport is Transport.MP4:
        yield WireFilm.model_validate({**facts, "mp4": base64.b64encode(mp4_bytes(film.frames, film.fps)).decode()})
    else:
        assert shared is not None
        path = shared / f"{uuid.uuid4().hex}.mp4"
        try:
            path.write_bytes(mp4_bytes(film.frames, film.fps))
            yield WireFilm.model_validate({**facts, "path": path.name})
        finally:
            path.unlink(missing_ok=True)


def off_wire(sent: WireFilm, shared: Path | None) -> Film:
    """The film that was sent; WireError when it cannot be read, or lies outside the shared folder."""
    if sent.png is not None:
        frames = _png_frames(sent.png)
    elif sent.mp4 is not None:
        frames = mp4_frames(io.BytesIO(_decoded(sent.mp4)))
    else:
        assert sent.path is not None
        frames = mp4_frames(str(_inside(shared, sent.path)))
    return Film(name=sent.name, prompt=sent.prompt, frames=frames, fps=sent.fps)


def _inside(shared: Path | None, path: str) -> Path:
    if shared is None:
        raise WireError("this service shares no disk; start it with --shared FOLDER, or send png or mp4")
    found = (shared / path).resolve()
    if not found.is_relative_to(shared.resolve()) or not found.is_file():
        raise WireError(f"{path!r} is no file in the shared folder")
    return found
