"""The artifact store: only its own names, only its own files, whole or absent."""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.artifacts.filesystem import ArtifactNotFoundError, FilesystemArtifacts, StorageError

FILM = b"film" * 100


@pytest.fixture
def store(tmp_path: Path) -> FilesystemArtifacts:
    """A store in a folder of its own, beside a secret that it must not give away."""
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    return FilesystemArtifacts(tmp_path / "artifacts")


def _publish(store: FilesystemArtifacts, job_id: str = "job", attempt: int = 1) -> str:
    store.part_path(job_id, attempt).write_bytes(FILM)
    return store.publish(job_id, attempt, "mp4")


def test_a_film_is_published_whole(store: FilesystemArtifacts) -> None:
    """A written part gets its name and can be read by it; the part is gone."""
    name = _publish(store)
    assert name == "job/1.mp4"
    with store.open(name) as file:
        assert file.read() == FILM
    assert sorted(path.name for path in store.root.rglob("*.*")) == ["1.mp4"]


def test_a_part_cannot_be_read(store: FilesystemArtifacts) -> None:
    """What is still being written is not served."""
    store.part_path("job", 1).write_bytes(FILM)
    with pytest.raises(ArtifactNotFoundError):
        store.open("job/1.part")


def test_a_new_part_begins_empty(store: FilesystemArtifacts) -> None:
    """The leftover of a killed writer is not continued."""
    store.part_path("job", 1).write_bytes(b"old")
    assert store.part_path("job", 1).read_bytes() == b""


def test_a_loser_that_cleans_up_leaves_the_next_attempt_its_folder(store: FilesystemArtifacts) -> None:
    """An attempt that has written nothing yet can do so after an earlier one's film was refused and removed."""
    loser = _publish(store, attempt=1)
    part = store.part_path("job", 2)
    store.remove(loser)
    part.write_bytes(FILM)
    assert store.publish("job", 2, "mp4") == "job/2.mp4"


def test_publishing_nothing_is_a_storage_error(store: FilesystemArtifacts) -> None:
    """A part that was never written, or that vanished, is told as what it is."""
    part = store.part_path("job", 1)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"could not publish job/1\.mp4"):
            store.publish("job", 1, "mp4")
        part.unlink(missing_ok=True)


def test_trying_out_leaves_nothing(store: FilesystemArtifacts) -> None:
    """It succeeds where films can be stored, fails where they cannot, and nothing of it stays."""
    store.try_out()
    assert list(store.root.iterdir()) == []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match="could not store anything: File too large"):
            store.try_out()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store.root.iterdir()) == []


def _hostile_names() -> Iterator[str]:
    """About two thousand ways out of a folder."""
    climbs = [
        "..",
        "../..",
        "../../..",
        "....",
        ".",
        "",
        "~",
        "%2e%2e",
        "..%2f..",
        "%252e%252e",
        "..\\",
        "..\x00",
        "\u2025",
        "\uff0e\uff0e",
    ]
    slashes = ["/", "//", "\\", "%2f", "%5c", "/./", "\u2215", "/\x00/", "/\n/"]
    targets = ["secret.mp4", "etc/passwd", "1.mp4", "job/1.mp4", "1.part", "job", "", "1.mp4\x00", "1.mp4/", "1.mp4/..",
               "1.MP4", "1.mp4 ", " 1.mp4", "-1.mp4", "1e3.mp4", "\u0661.mp4"]  # fmt: skip
    yield from ("".join(parts) for parts in itertools.product(climbs, slashes, targets))
    yield from (
        f"job{slash}{target}"
        for slash, target in itertools.product(slashes, targets)
        if (slash, target) not in {("/", "1.mp4"), ("/", "1.part")}
    )
    yield from (
        "/etc/passwd",
        "/" + "a" * 5000,
        "a" * 65 + "/1.mp4",
        "job/" + "1" * 10 + ".mp4",
        "C:\\1.mp4",
        "job/1.mp4:x",
    )


def test_no_name_leads_out(store: FilesystemArtifacts) -> None:
    """Of two thousand hostile names none opens a file, none removes one, and none makes one."""
    _publish(store)
    before = sorted(store.root.parent.rglob("*"))
    names = list(_hostile_names())
    assert len(names) > 2000
    for name in names:
        with pytest.raises(ArtifactNotFoundError):
            store.open(name)
        with pytest.raises(ValueError, match="is not an artifact's name"):
            store.remove(name)
    assert sorted(store.root.parent.rglob("*")) == before


@pytest.mark.parametrize("job_id", ["..", ".", "a/b", "", "a\x00", "a\n", "/etc", "-a", "é", "a" * 65])
def test_hostile_job_ids_get_no_folder(store: FilesystemArtifacts, job_id: str) -> None:
    """A folder is made for names of jobs only."""
    with pytest.raises(ValueError, match="is not an artifact's name"):
        store.part_path(job_id, 1)
    assert list(store.root.iterdir()) == []


def test_links_are_not_followed(store: FilesystemArtifacts) -> None:
    """A link in the place of a film, or of a job's folder, is not a film; nothing is written through one either."""
    secret = store.root.parent / "secret.mp4"
    (store.root / "linked").mkdir()
    (store.root / "linked" / "1.mp4").symlink_to(secret)
    elsewhere = store.root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.mp4").write_bytes(b"secret")
    (store.root / "folder").symlink_to(elsewhere)
    for name in ("linked/1.mp4", "folder/1.mp4"):
        with pytest.raises(ArtifactNotFoundError):
            store.open(name)
    with pytest.raises(StorageError, match="is a link"):
        store.part_path("folder", 2)
    assert [job_id for job_id, *_ in store.files()] == ["linked"]


def test_what_is_no_plain_file_is_no_film(store: FilesystemArtifacts) -> None:
    """A folder or a pipe of a film's name is refused, without waiting for a writer of the pipe."""
    (store.root / "a" / "1.mp4").mkdir(parents=True)
    (store.root / "b").mkdir()
    os.mkfifo(store.root / "b" / "1.mp4")
    for name in ("a/1.mp4", "b/1.mp4"):
        with pytest.raises(ArtifactNotFoundError):
            store.open(name)


def test_a_film_that_cannot_be_opened_just_now_is_not_gone(store: FilesystemArtifacts) -> None:
    """Without a descriptor left a film is not said to be absent, which would be taken for ever."""
    name = _publish(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(StorageError, match=r"could not open .*Too many open files"):
            store.open(name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    store.open(name).close()


def test_removing_the_last_file_removes_the_folder(store: FilesystemArtifacts) -> None:
    """A store whose films are gone is empty; removing what is not there is no error."""
    first, second = _publish(store, attempt=1), _publish(store, attempt=2)
    store.remove(first)
    store.open(second).close()
    store.remove(second)
    store.remove(second)
    assert list(store.root.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A path through a file is told by name."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not make the artifact folder"):
        FilesystemArtifacts(tmp_path / "file" / "artifacts")
