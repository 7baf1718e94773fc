"""Clips from a webdataset: tar shards that hold, under one key each, a video and its caption (`.txt` or `.json`)."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys, tar_file_iterator

from engines.types import VideoSpec
from post_train.data.clips import VIDEO_SUFFIXES, SourceClip, checked_caption
from post_train.data.decoding import ClipError, decode_video

_END = 1024  # bytes: two empty blocks close an archive


def find_shards(folder_or_pattern: str) -> list[Path]:
    """The tar files of a folder, one tar file, or a pattern as `shard-{000..017}.tar`; ClipError when there is none.

    Only files: webdataset's `pipe:` would run what it is given.
    """
    path = Path(folder_or_pattern)
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [Path(p) for p in expand_urls(folder_or_pattern)]
    missing = [p for p in shards if not p.is_file()]
    if missing or not shards:
        raise ClipError(folder_or_pattern, f"{missing[0] if missing else 'a tar shard'} is not there")
    return shards


class ShardClips:
    """The samples of tar shards, in their order: a video under one of its suffixes, its caption under txt or json."""

    def __init__(self, shards: list[Path]) -> None:
        self.shards = shards

    def __iter__(self) -> Iterator[SourceClip]:
        count = 0
        for shard in self.shards:
            for sample in _samples(shard):
                count += 1
                yield _clip(sample, shard)
        if count == 0:
            raise ClipError(", ".join(str(s) for s in self.shards[:3]), "no sample is in these shards")

    def describe(self) -> dict[str, Any]:
        return {"kind": "webdataset", "shards": [str(s) for s in self.shards]}


def _samples(shard: Path) -> Iterator[dict[str, Any]]:
    """The samples of one shard, undecoded; a shard that breaks off is an error, never a shorter shard."""
    with shard.open("rb") as file:
        _check_end(file, shard)
        # webdataset's own pipeline opens shards by url and leaves them open; its reader and its grouping do neither.
        members = tar_file_iterator(cast("Any", file))
        try:
            yield from group_by_keys({**member, "__url__": str(shard)} for member in members)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            if isinstance(error, ClipError):
                raise
            raise ClipError(str(shard), f"it is not a whole tar file: {error.args[0] if error.args else ''}") from None


def _check_end(file: BinaryIO, shard: Path) -> None:
    """ClipError unless the shard ends as a tar file does: readers take one that was cut in a header for complete."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    if size < _END or any(file.read(_END)):
        raise ClipError(str(shard), "it is not a whole tar file: its end is missing")
    file.seek(0)


def _clip(sample: dict[str, Any], shard: Path) -> SourceClip:
    name = f"{shard}:{sample['__key__']}"
    videos = [v for k, v in sample.items() if f".{k.lower()}" in VIDEO_SUFFIXES]
    if len(videos) != 1:
        raise ClipError(name, f"it has {len(videos)} videos under that key; one is needed (mp4, webm, ...)")
    return SourceClip(
        name=name,
        caption=checked_caption(_caption(sample, name), name),
        digest=hashlib.sha256(videos[0]).hexdigest(),
        frames=_Decoder(videos[0], name),
    )


@dataclass(frozen=True, slots=True)
class _Decoder:
    video: bytes
    name: str

    def __call__(self, spec: VideoSpec) -> NDArray[np.uint8]:
        return decode_video(self.video, spec, name=self.name)


def _caption(sample: dict[str, Any], name: str) -> str:
    try:
        if "txt" in sample:
            return sample["txt"].decode("utf-8")
        if "json" in sample:
            content = json.loads(sample["json"])
            if isinstance(content, dict) and isinstance(content.get("caption"), str):
                return content["caption"]
            raise ClipError(name, 'its json has no "caption"')
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ClipError(name, f"its caption cannot be read: {error}") from None
    raise ClipError(name, 'it has no caption; add a txt, or a json with "caption", under the same key')
