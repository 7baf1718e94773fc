"""Frames to a video file: H.264 in mp4 by default, AV1 and VP9 by option; written whole or not at all.

F pixel frames, H W pixel size, C channels.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from engines.errors import EncodingFailed, UnknownName
from engines.whole_writes import appearing_whole

VideoFormat: TypeAlias = Literal["mp4", "webm", "mp4-av1", "webm-vp9"]
H264Encoder: TypeAlias = Literal["libx264", "h264_nvenc"]

COMMENT = "made by AI: rushes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """How a format is made: container, encoder, its options, and the media type it is served as."""

    container: Literal["mp4", "webm"]
    encoder: str
    media_type: str
    options: Mapping[str, str] = field(default_factory=dict)


# Visually lossless for generated film at about the same size as each other; the presets are what one core has time for.
_AV1 = {"preset": "8", "crf": "28"}
_VP9 = {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4"}
# mbtree=0: x264's AVX-512 code for it reads memory it never wrote, so that one film in ten came out in other bytes
# (300 encodings of one 64x64 film gave 4 different files, with mbtree=0 or without AVX-512 always the same).
_H264 = {"crf": "18", "preset": "medium", "x264-params": "mbtree=0"}
_RECIPES: dict[str, _Recipe] = {
    "mp4": _Recipe(container="mp4", encoder="libx264", media_type="video/mp4", options=_H264),
    "webm": _Recipe(container="webm", encoder="libsvtav1", media_type="video/webm", options=_AV1),
    "mp4-av1": _Recipe(container="mp4", encoder="libsvtav1", media_type="video/mp4", options=_AV1),
    "webm-vp9": _Recipe(container="webm", encoder="libvpx-vp9", media_type="video/webm", options=_VP9),
}
_BT709 = 1  # the code for it in H.273, for matrix, primaries and transfer alike
_NVENC = {"preset": "p5", "rc": "vbr", "cq": "19", "b": "0"}


def media_type(video_format: str) -> str:
    """The Content-Type of a format; another name raises `UnknownName`."""
    return _recipe(video_format).media_type


def file_suffix(video_format: str) -> str:
    """The file name's ending for a format, with its dot."""
    return f".{_recipe(video_format).container}"


def write_video(
    frames_FHWC: NDArray[np.uint8],
    target: Path | BinaryIO,
    *,
    fps: int,
    video_format: VideoFormat = "mp4",
    h264_encoder: H264Encoder = "libx264",
) -> None:
    """Encode frames, uint8 [F, H, W, 3], at exactly `fps` frames a second.

    A path appears complete or not at all (temporary file beside it, fsync, rename); a file object is written to front
    to back. Same frames, same bytes, on the same machine. An odd width or height gains a repeated last column or row,
    since 4:2:0 halves the colour planes. Failure raises `EncodingFailed`; frames of another shape are a `ValueError`.
    """
    recipe = _recipe(video_format)
    if recipe.encoder == "libx264" and h264_encoder != "libx264":
        if h264_encoder not in get_args(H264Encoder):
            raise UnknownName("H.264 encoder", h264_encoder, get_args(H264Encoder))
        recipe = _Recipe(container="mp4", encoder="h264_nvenc", media_type=recipe.media_type, options=_NVENC)
    _check(frames_FHWC, fps)
    frames_FHWC = even_sized(frames_FHWC)
    if isinstance(target, Path):
        with appearing_whole(target) as partial:
            _encode(frames_FHWC, partial, fps, recipe)
    else:
        with tempfile.TemporaryDirectory(prefix="rushes-") as folder:
            partial = Path(folder) / "film"
            _encode(frames_FHWC, partial, fps, recipe)
            with partial.open("rb") as file:
                shutil.copyfileobj(file, target)


def even_sized(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames with an odd height or width made even by repeating the last row or column."""
    _, height, width, _ = frames_FHWC.shape
    return np.pad(frames_FHWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _encode(frames_FHWC: NDArray[np.uint8], path: Path, fps: int, recipe: _Recipe) -> None:
    import av  # noqa: PLC0415  (loads every codec; the gateway reads this module's media types without them)
    from av.error import FFmpegError  # noqa: PLC0415
    from av.video.reformatter import ColorRange, Colorspace  # noqa: PLC0415

    # SVT-AV1 tells its whole configuration on stderr unless the environment says otherwise.
    os.environ.setdefault("SVT_LOG", "1")
    # bitexact leaves out the muxer's version and random ids; faststart puts the index first, so that playing can begin.
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if recipe.container == "mp4" else {})
    try:
        with av.open(str(path), "w", format=recipe.container, options=options) as container:
            container.metadata["comment"] = COMMENT
            stream: Any = container.add_stream(recipe.encoder, rate=fps, options=dict(recipe.options))
            stream.height, stream.width = frames_FHWC.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            # Said, not left to the player's guess, which goes by the size of the picture.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = ColorRange.MPEG
            for index, frame_HWC in enumerate(frames_FHWC):
                rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
                frame = rgb.reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (FFmpegError, ValueError) as error:
        raise EncodingFailed(f"the encoder {recipe.encoder} failed: {error}") from error


def _recipe(video_format: str) -> _Recipe:
    if video_format not in get_args(VideoFormat):
        raise UnknownName("video format", video_format, get_args(VideoFormat))
    return _RECIPES[video_format]


def _check(frames_FHWC: NDArray[np.uint8], fps: int) -> None:
    if frames_FHWC.dtype != np.uint8 or frames_FHWC.ndim != 4 or frames_FHWC.shape[3] != 3 or 0 in frames_FHWC.shape:
        raise ValueError(
            f"frames are {frames_FHWC.dtype} {list(frames_FHWC.shape)}; they must be uint8 [frames, height, width, 3]"
        )
    if isinstance(fps, bool) or not isinstance(fps, int) or fps < 1:
        raise ValueError(f"fps is {fps!r}; it must be a whole number, 1 or more")
