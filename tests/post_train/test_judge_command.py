"""`rushes train reward` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import run_rushes


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
    done = run_rushes("train", "reward", *arguments, "--run", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
