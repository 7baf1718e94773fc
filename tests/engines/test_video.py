"""Files hold every frame at the exact rate, appear whole or not at all, and are the same for the same frames."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engines import video
from engines.errors import EncodingFailed, UnknownName
from engines.video import VideoFormat, even_sized, file_suffix, media_type, write_video

FORMATS: tuple[VideoFormat, ...] = ("mp4", "webm", "mp4-av1", "webm-vp9")
CODECS = {"mp4": "h264", "webm": "av1", "mp4-av1": "av1", "webm-vp9": "vp9"}


def moving_square(frames: int = 9, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """A coloured gradient with a white square that moves, [F, H, W, 3]."""
    film = np.zeros((frames, height, width, 3), np.uint8)
    film[..., 0] = np.linspace(0, 255, width)
    film[..., 1] = np.linspace(0, 255, height)[:, None]
    film[..., 2] = 90
    for index in range(frames):
        film[index, height // 4 : height // 2, index : index + width // 4] = 255
    return film


def decoded(source: Path | io.BytesIO) -> tuple[NDArray[np.uint8], av.VideoStream, list[float]]:
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [float(frame.time) for frame in frames if frame.time is not None]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), stream, times


@pytest.mark.parametrize("video_format", FORMATS)
@pytest.mark.parametrize(("frames", "height", "width", "fps"), [(17, 64, 64, 8), (1, 32, 48, 16), (5, 48, 80, 30)])
def test_round_trip(tmp_path: Path, video_format: VideoFormat, frames: int, height: int, width: int, fps: int) -> None:
    """Frame count, rate, times, size and codec are exact, and the pictures are near enough to be told as the same."""
    film = moving_square(frames, height, width)
    path = tmp_path / f"film{file_suffix(video_format)}"
    write_video(film, path, fps=fps, video_format=video_format)
    seen, stream, times = decoded(path)
    assert seen.shape == film.shape
    assert stream.average_rate == fps
    assert times == pytest.approx([index / fps for index in range(frames)], abs=1e-3)
    assert stream.codec_context.codec.canonical_name == CODECS[video_format]
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert np.abs(seen.astype(int) - film).mean() < 6


def test_h264_is_close_and_its_colours_are_named(tmp_path: Path) -> None:
    """The default is visually lossless, tagged BT.709, with the index before the pictures and the comment in place."""
    film, path = moving_square(17), tmp_path / "film.mp4"
    write_video(film, path, fps=8)
    seen, stream, _ = decoded(path)
    assert 10 * np.log10(255**2 / np.mean((seen.astype(float) - film) ** 2)) > 30
    assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == video.COMMENT


@pytest.mark.parametrize("video_format", FORMATS)
def test_odd_sizes_gain_one_line(tmp_path: Path, video_format: VideoFormat) -> None:
    """An odd width or height is made even by repeating the edge, whatever the codec."""
    path = tmp_path / "film"
    write_video(moving_square(3, 33, 47), path, fps=8, video_format=video_format)
    seen, _, _ = decoded(path)
    assert seen.shape == (3, 34, 48, 3)
    film = even_sized(moving_square(3, 33, 47))
    assert np.array_equal(film[:, :, -1], film[:, :, -2])
    assert np.array_equal(film[:, -1], film[:, -2])


@pytest.mark.parametrize("video_format", FORMATS)
def test_same_frames_same_bytes(tmp_path: Path, video_format: VideoFormat) -> None:
    """Encoding again, to a file or to memory, gives the same bytes."""
    film = moving_square(17)
    path = tmp_path / "film"
    write_video(film, path, fps=8, video_format=video_format)
    for _ in range(20):
        again = io.BytesIO()
        write_video(film, again, fps=8, video_format=video_format)
        assert again.getvalue() == path.read_bytes()


def test_a_film_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the encoder refuses, neither the file nor its temporary neighbour is there, and an old film stays."""
    path = tmp_path / "film.webm"
    with pytest.raises(EncodingFailed, match="libsvtav1 failed"):
        write_video(moving_square(1, 1, 1), path, fps=8, video_format="webm")  # AV1 begins at 4 pixels
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"the old film")
    with pytest.raises(EncodingFailed):
        write_video(moving_square(1, 1, 1), path, fps=8, video_format="webm")
    assert path.read_bytes() == b"the old film"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the last byte is on disk the name shows the old film; then, at once, the new one."""
    path = tmp_path / "film.mp4"
    path.write_bytes(b"the old film")
    synced: list[bytes] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_video(moving_square(), path, fps=8)
    assert synced == [b"the old film", path.read_bytes()]
    assert len(path.read_bytes()) > 500
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    """A place that can't be written to is told as what it is."""
    with pytest.raises(FileNotFoundError):
        write_video(moving_square(), tmp_path / "gone" / "film.mp4", fps=8)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_frames_of_another_shape_are_refused(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    """Only uint8 [F, H, W, 3] with at least one frame is a film."""
    with pytest.raises(ValueError, match="they must be uint8"):
        write_video(frames, tmp_path / "film.mp4", fps=8)


@pytest.mark.parametrize("fps", [0, -1, True, 8.0])
def test_a_rate_is_a_whole_number(tmp_path: Path, fps: int) -> None:
    """Frames a second are counted."""
    with pytest.raises(ValueError, match="fps is"):
        write_video(moving_square(), tmp_path / "film.mp4", fps=fps)


def test_names(tmp_path: Path) -> None:
    """Formats have media types and endings; a wrong name, of format or encoder, lists the right ones."""
    assert [media_type(name) for name in FORMATS] == ["video/mp4", "video/webm", "video/mp4", "video/webm"]
    assert [file_suffix(name) for name in FORMATS] == [".mp4", ".webm", ".mp4", ".webm"]
    with pytest.raises(UnknownName, match="'avi'; known are mp4, mp4-av1, webm, webm-vp9"):
        media_type("avi")
    with pytest.raises(UnknownName, match="'x265'; known are h264_nvenc, libx264"):
        write_video(moving_square(), tmp_path / "a.mp4", fps=8, h264_encoder="x265")  # pyright: ignore[reportArgumentType]


def test_nvenc_without_a_gpu_is_a_clear_error(tmp_path: Path) -> None:
    """Asked for on a host without NVIDIA's encoder, NVENC fails by name and leaves nothing behind."""
    if Path("/dev/nvidia0").exists():
        pytest.skip("this host has an NVIDIA GPU")
    with pytest.raises(EncodingFailed, match="h264_nvenc failed"):
        write_video(moving_square(9, 256, 256), tmp_path / "film.mp4", fps=8, h264_encoder="h264_nvenc")
    assert list(tmp_path.iterdir()) == []
