"""What is written appears whole or not at all, and leaves nothing else behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.whole_writes import appearing_whole, folder_appearing_whole, write_whole


def test_a_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """Its folder is made, the new content is there, everyone may read it, and no temporary file stays."""
    path = tmp_path / "a" / "film"
    for content in (b"old", b"new"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o444 == 0o444
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The old file keeps its content, a folder its files, and nothing else is left."""
    file, folder = tmp_path / "film", tmp_path / "model"
    write_whole(file, b"old")
    with folder_appearing_whole(folder) as part:
        (part / "weights").write_text("old")
    with pytest.raises(RuntimeError, match="no more"), appearing_whole(file) as partial:
        partial.write_bytes(b"ne")
        raise RuntimeError("no more")
    with pytest.raises(RuntimeError, match="no more"), folder_appearing_whole(folder) as part:
        (part / "weights").write_text("ne")
        raise RuntimeError("no more")
    assert file.read_bytes() == b"old"
    assert (folder / "weights").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [file, folder]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """No file of the old folder is mixed into the new one, and what a killed writer left behind is not either."""
    folder = tmp_path / "deep" / "model"
    for name in ("early", "late"):
        with folder_appearing_whole(folder) as part:
            assert not list(part.iterdir())
            (part / name).write_text(name)
    assert [p.name for p in folder.iterdir()] == ["late"]
    assert list(folder.parent.iterdir()) == [folder]
