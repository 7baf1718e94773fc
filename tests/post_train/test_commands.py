"""`rushes train` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.card import read_card
from tests.command_line import run_rushes


@pytest.mark.long
@pytest.mark.timeout(600)
def test_from_nothing_to_a_model_folder(tmp_path: Path) -> None:
    """VAE, base and export, each stopped before its first step, leave a folder that reads as the built-in model."""
    vae, base, model = (str(tmp_path / name) for name in ("vae", "base", "model"))
    for arguments in (
        ("diorama-vae", "--run", vae, "--minutes", "0"),
        ("diorama-base", "--run", base, "--vae", f"{vae}/model", "--minutes", "0"),
        ("diorama-base", "--run", base, "--vae", f"{vae}/model", "--export", model),
    ):
        done = run_rushes("train", *arguments)
        assert done.returncode == 0, done.stderr
    assert read_card(Path(model)).name == "diorama"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("diorama-base", "--vae", "nowhere"), "train one with `rushes train diorama-vae`"),
        (("diorama-vae", "--precision", "fp8"), "precision 'fp8' is unknown; use fp32 or bf16"),
        (("diorama-base", "--device", "tpu"), "device 'tpu' is unknown; use cpu or cuda"),
        (("diorama-vae", "--device", "cuda"), "cuda"),
        (("clouds",), "clouds"),
        (("diorama-base", "--start-from", "nowhere"), "nowhere is no model of a base run"),
        (("diorama-base", "--steps", "0"), "steps"),
        (("diorama-vae", "--threads", "0"), "threads"),
    ],
)
def test_mistakes_get_a_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """A missing VAE, an unknown precision, recipe or thread count: exit code 2, no trace."""
    done = run_rushes("train", *arguments, "--run", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
