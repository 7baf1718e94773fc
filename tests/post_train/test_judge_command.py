"""`rushes train reward` as it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _reward(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("rushes")), "train", "reward", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--judge", "referee"), "referee"),
        (("--vae", "nowhere"), "train one with `rushes train diorama-vae`"),
        (("--measure",), "train one with `rushes train reward"),
        (("--shipped",), "it needs --measure"),
        (("--precision", "int3"), "precision 'int3' is unknown"),
    ],
)
def test_mistakes_get_a_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """An unknown judge or precision, a missing VAE, nothing to measure: exit code 2, no trace."""
    done = _reward(*arguments, "--run", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
