"""`rushes keys` as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.live import ROOT

VARIABLE = "RUSHES_API_KEYS_FILE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def rushes_keys(*arguments: str, file: Path | None) -> subprocess.CompletedProcess[str]:
    named = {} if file is None else {VARIABLE: str(file)}
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "keys", *arguments],
        cwd=ROOT,
        env=kept | {"COLUMNS": "200", "NO_COLOR": "1"} | named,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_key_from_its_making_to_its_end(file: Path) -> None:
    """It is the one line of standard output, is listed by its id without its secret, and is gone once revoked."""
    made = rushes_keys("new", "studio", "--days", "30", file=file)
    assert made.returncode == 0, made.stderr
    (key,) = made.stdout.splitlines()
    key_id, secret = key.split("_", 2)[1:]
    assert secret not in made.stderr
    listed = rushes_keys("list", file=file)
    assert listed.stdout.startswith("studio: weight 1")
    assert key_id in listed.stdout
    assert secret not in listed.stdout
    revoked = rushes_keys("revoke", key_id, file=file)
    assert "studio" in revoked.stdout
    assert key_id not in rushes_keys("list", file=file).stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("new", "../studio"), "is not a name"),
        (("revoke", "nope"), "cannot be read"),
        (("list",), "cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(file: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, one line, nothing made."""
    done = rushes_keys(*arguments, file=file)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.startswith("rushes: ")
    assert done.stderr.count("\n") == 1
    assert not file.exists()


def test_the_file_has_to_be_named() -> None:
    """Without an option and a variable nothing is guessed."""
    done = rushes_keys("new", "studio", file=None)
    assert done.returncode == 2
    assert "--file" in done.stderr
    assert VARIABLE in done.stderr


def test_the_server_does_not_start_with_a_broken_file(file: Path) -> None:
    """The fault is told before a model is loaded, in one sentence."""
    file.write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", "serve", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {VARIABLE: str(file), "RUSHES_STATE_DIR": str(file.parent / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (file.parent / "state").exists()
