"""What a training clip is, whoever brings it, and the plainest source: a folder of videos with captions.

A caption stands in a text file beside its video (`cat.mp4`, `cat.txt`), or all of them in one `metadata.jsonl` whose
lines say {"file": "cat.mp4", "caption": "A cat ..."}.
Legend: F pixel frames, H W pixel size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.types import VideoSpec
from post_train.data.decoding import ClipError, decode_video

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
METADATA = "metadata.jsonl"
_SHOWN_PROBLEMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceClip:
    """One clip before it is decoded: `frames(spec)` gives uint8 [F, H, W, 3] or raises ClipError naming the clip.

    `digest` hashes its content, `others` are further captions of it, and a clip of weight 2 is drawn twice as often.
    """

    name: str
    caption: str
    digest: str
    frames: Callable[[VideoSpec], NDArray[np.uint8]]
    others: tuple[str, ...] = ()
    weight: float = 1.0


class ClipSource(Protocol):
    """Clips in a fixed order; `describe()` is JSON that tells where they come from."""

    def __iter__(self) -> Iterator[SourceClip]: ...

    def describe(self) -> dict[str, Any]: ...


def checked_caption(text: str, name: str) -> str:
    """`text` without outer blanks; ClipError when nothing is left, or when it is no text."""
    stripped = text.strip()
    if not stripped:
        raise ClipError(name, "its caption is empty; write what the clip shows, or remove the clip")
    if "\x00" in stripped:
        raise ClipError(name, "its caption holds a NUL character, which is no text")
    return stripped


class FolderClips:
    """The videos of a folder and of the folders in it, in the order of their names.

    Every missing or empty caption is found before the first video is read. ClipError names the files.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ClipError(str(folder), "it is not a folder; name one with videos and captions")
        self.folder = folder
        listed = folder / METADATA
        self._captions = _from_metadata(listed) if listed.is_file() else _from_sidecars(folder)
        if not self._captions:
            raise ClipError(
                str(folder),
                f"it holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}); put videos with captions there",
            )

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[SourceClip]:
        for path, caption in self._captions.items():
            yield SourceClip(name=str(path), caption=caption, digest=file_digest(path), frames=_Decoder(path))

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "path": str(self.folder), "clips": len(self)}


@dataclass(frozen=True, slots=True)
class _Decoder:
    path: Path

    def __call__(self, spec: VideoSpec) -> NDArray[np.uint8]:
        return decode_video(self.path, spec, name=str(self.path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; ClipError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClipError(str(path), f"it cannot be read: {error.strerror}") from None


def _from_sidecars(folder: Path) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    problems: list[ClipError] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()):
        try:
            captions[path] = checked_caption(_read_text(path.with_suffix(".txt"), path), str(path))
        except ClipError as problem:
            problems.append(problem)
    _raise_all(problems)
    return captions


def _read_text(sidecar: Path, video: Path) -> str:
    if not sidecar.is_file():
        raise ClipError(str(video), f"it has no caption; write one to {sidecar.name}, or list it in {METADATA}")
    try:
        return sidecar.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ClipError(str(video), f"its caption {sidecar.name} is not UTF-8 text") from None


def _from_metadata(listed: Path) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    problems: list[ClipError] = []
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ClipError(str(listed), "it is not UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            path, caption = _entry(line, listed, f"{listed}, line {number}", captions.keys())
            captions[path] = caption
        except ClipError as problem:
            problems.append(problem)
    _raise_all(problems)
    return captions


def _entry(line: str, listed: Path, where: str, before: Collection[Path]) -> tuple[Path, str]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ClipError(where, f"it is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(k), str) for k in ("file", "caption")):
        raise ClipError(where, 'it must say {"file": "name.mp4", "caption": "text"}')
    path = listed.parent / content["file"]
    if not path.resolve().is_relative_to(listed.parent.resolve()):
        raise ClipError(where, f"{content['file']!r} leads out of {listed.parent}")
    if not path.is_file():
        raise ClipError(where, f"{content['file']!r} is no file of {listed.parent}")
    if path in before:
        raise ClipError(where, f"{content['file']!r} is listed a second time")
    return path, checked_caption(content["caption"], where)


def _raise_all(problems: list[ClipError]) -> None:
    """One error for all problems, so that a large folder is not mended one run at a time."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    told = "; ".join(str(p) for p in problems[:_SHOWN_PROBLEMS])
    raise ClipError(f"{len(problems)} clips", f"{told}{more}")
