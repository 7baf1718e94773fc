"""Finished films on a disk: names are made here, a film is whole or absent, and nothing outside the root is reached."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FILE = re.compile(r"([0-9]{1,9})\.(part|mp4|webm)")
_LEFTOVER = re.compile(r"\.([0-9]{1,9})\.part\.[A-Za-z0-9_]{1,32}\.partial")  # of an encoder that was killed
# What a name that leads nowhere, through a link or to something else than a file is answered with.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENAMETOOLONG})
_TRIAL_BYTES = 1 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StorageError(RuntimeError):
    """The disk refused: full, read-only or broken."""


class ArtifactNotFoundError(LookupError):
    """There is no such artifact, or the name is not one this store makes."""


class FilesystemArtifacts:
    """Artifacts of one pool under one folder, as `<job>/<attempt>.<mp4|webm>`; `.part` while it is being written."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        with _storage(f"make the artifact folder {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)

    def part_path(self, job_id: str, attempt: int) -> Path:
        """Where an attempt writes its film: an empty file, so that whoever removes another's leaves the folder."""
        name = _checked(f"{job_id}/{attempt}.part")
        path = self.root / name
        with _storage(f"prepare {name}"):
            if path.parent.is_symlink():
                raise StorageError(f"the folder of job {job_id} is a link; remove it")
            path.unlink(missing_ok=True)
            _make_with_folder(path)
        return path

    def publish(self, job_id: str, attempt: int, extension: str) -> str:
        """Make a written part durable and give it its name, which is returned; StorageError when the disk refuses."""
        part = _checked(f"{job_id}/{attempt}.part")
        name = _checked(f"{job_id}/{attempt}.{extension}")
        with _storage(f"publish {name}"):
            file = os.open(self.root / part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(file).st_size == 0:
                    raise StorageError(f"could not publish {name}: nothing was written")
                os.fsync(file)
            finally:
                os.close(file)
            (self.root / part).rename(self.root / name)
            folder = os.open(self.root / job_id, _FOLDER_FLAGS)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return name

    def try_out(self) -> None:
        """Write a megabyte durably, of which nothing is left even when we are killed; StorageError if it is refused."""
        with _storage("store anything"), tempfile.TemporaryFile(dir=self.root) as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def open(self, name: str) -> BinaryIO:
        """The artifact for reading; ArtifactNotFoundError for any name that is not a published file of this store,
        StorageError when the machine cannot open what may be there."""
        return os.fdopen(self._descriptor(name), "rb")

    def remove(self, name: str) -> None:
        """Delete one file of the store, and its job's folder when that was the last; a missing one is no error."""
        path = self.root / _checked(name, leftovers=True)
        with _storage(f"remove {name}"):
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def files(self) -> Iterator[tuple[str, int, str, float]]:
        """Each file as (job id, attempt, name, Unix time of its last change); strangers are passed over."""
        for folder in self.root.iterdir():
            if _JOB.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                # Whatever another sweeper removes meanwhile is no longer a file.
                with contextlib.suppress(FileNotFoundError):
                    yield from _files_of_job(folder)

    def _descriptor(self, name: str) -> int:
        try:
            job_id, file_name = _checked(name).split("/")
        except ValueError as error:
            raise ArtifactNotFoundError(f"no artifact is named {name[:100]!r}") from error
        # Opened step by step relative to its folder, so that a link anywhere on the way is refused, not followed.
        try:
            folder = os.open(self.root / job_id, _FOLDER_FLAGS)
            try:
                file = os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in _ABSENT:
                raise ArtifactNotFoundError(f"no artifact is named {name!r}") from error
            # It may be there all the same: descriptors run out, disks fail.
            raise StorageError(f"could not open {name}: {error.strerror or error}") from error
        if file_name.endswith(".part") or not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise ArtifactNotFoundError(f"no artifact is named {name!r}")
        return file


def _make_with_folder(path: Path) -> None:
    while True:
        path.parent.mkdir(exist_ok=True)
        # The empty folder may be taken away again by whoever removes the job's last other file at this moment.
        with contextlib.suppress(FileNotFoundError):
            return path.touch()


def _files_of_job(folder: Path) -> Iterator[tuple[str, int, str, float]]:
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name) or _LEFTOVER.fullmatch(path.name)
        if match:
            yield folder.name, int(match[1]), f"{folder.name}/{path.name}", path.lstat().st_mtime


def _checked(name: str, *, leftovers: bool = False) -> str:
    """The name, if this store could have made it; ValueError otherwise."""
    job_id, slash, file_name = name.partition("/")
    known = _FILE.fullmatch(file_name) or (leftovers and _LEFTOVER.fullmatch(file_name))
    if not (slash and _JOB.fullmatch(job_id) and known):
        raise ValueError(f"{name[:100]!r} is not an artifact's name; they look like <job>/<attempt>.mp4")
    return name


@contextlib.contextmanager
def _storage(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"could not {action}: {error.strerror or error}") from error
