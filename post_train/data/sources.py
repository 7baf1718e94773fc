"""From what a person calls their data to a source of clips: a folder, tar shards, a list of seeds, or the world."""

from __future__ import annotations

from pathlib import Path

from post_train.data.clips import ClipSource, FolderClips
from post_train.data.decoding import ClipError
from post_train.data.diorama.record import Split
from post_train.data.diorama_clips import DioramaClips
from post_train.data.tar_shards import ShardClips, find_shards

DIORAMA = "diorama"


def open_source(data: str, *, num_frames: int, split: Split, first_seed: int, clips: int) -> ClipSource:
    """The clips that `data` names; the last four say what `diorama` alone means. ClipError when there is nothing.

    A folder with tar files in it is a webdataset, another folder holds videos, a `.json` is a list of curated seeds.
    """
    if data == DIORAMA:
        return DioramaClips(range(first_seed, first_seed + clips), split, num_frames=num_frames)
    path = Path(data).expanduser()
    if path.suffix == ".json":
        return DioramaClips.curated(path)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return ShardClips(find_shards(str(path)))
    if path.is_dir():
        return FolderClips(path)
    raise ClipError(
        data,
        "it is no data; name a folder of videos, tar shards (a folder, x.tar or x-{000..017}.tar), "
        f"a list of curated seeds (.json), or {DIORAMA}",
    )
