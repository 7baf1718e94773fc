"""`rushes generate` makes one film without a server, and tells of mistakes in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

RUSHES = Path(sys.executable).parent / "rushes"
STAGES = ["load", "encode", "denoise", "decode", "write", "total"]


def rushes(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [RUSHES, "generate", *map(str, arguments)], capture_output=True, text=True, env=environ, check=False
    )


def test_a_film_and_its_facts(tiny_wan: Path, tmp_path: Path) -> None:
    """One JSON object on stdout tells seconds by stage and what was made; the file holds exactly that."""
    out = tmp_path / "film.mp4"
    done = rushes(
        "--prompt", "a red ball", "--out", out, "--model", tiny_wan, "--num-frames", 5, "--steps", 2,
        "--width", 48, "--fps", 12, "--guidance-scale", 2.5, "--sampler", "euler", "--seed", 7, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    seconds = told.pop("seconds")
    assert told == {
        "path": str(out),
        "model": "tiny-wan",
        "seed": 7,
        "width": 48,
        "height": 32,
        "num_frames": 5,
        "fps": 12,
        "steps": 2,
        "guidance_scale": 2.5,
        "sampler": "euler",
    }
    assert list(seconds) == STAGES
    assert seconds["total"] == pytest.approx(sum(seconds[stage] for stage in STAGES[:-1]), rel=0.5, abs=1.0)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.width, stream.height, len(frames), stream.average_rate) == (48, 32, 5, 12)
    assert "Traceback" not in done.stderr


def test_the_same_seed_is_the_same_file(tiny_wan: Path, tmp_path: Path) -> None:
    """Run twice with the seed that the first run drew, the bytes are the same; a person reads one line."""
    first, second = tmp_path / "first.webm", tmp_path / "second.webm"
    common = ("--prompt", "a red ball", "--model", tiny_wan, "--num-frames", "1")
    drawn = rushes(*common, "--out", first, "--json")
    assert drawn.returncode == 0, drawn.stderr
    again = rushes(*common, "--out", second, "--seed", json.loads(drawn.stdout)["seed"])
    assert again.returncode == 0, again.stderr
    assert first.read_bytes() == second.read_bytes()
    assert again.stdout.count("\n") == 1
    assert "32x32, 1 frames at 8 fps" in again.stdout


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"--prompt": "  "}, "prompt is empty"),
    ({"--width": "33"}, "width is 33; it must be a multiple of 16, for example 32"),
    ({"--num-frames": "10"}, "num_frames is 10"),
    ({"--steps": "0"}, "num_inference_steps is 0"),
    ({"--guidance-scale": "nan"}, "guidance_scale must be a finite number"),
    ({"--seed": "-1"}, "seed is -1"),
    ({"--out": "film.avi"}, "film.avi ends in '.avi'; end it in .mp4 or .webm"),
    ({"--out": "film.mp4", "--format": "webm"}, "film.mp4 ends in .mp4, but webm is a .webm file"),
    ({"--out": "gone/film.mp4"}, "gone is not a folder; make it first"),
    ({"--out": "."}, "is a folder; name a file in it"),
    ({"--model": "no-such-model"}, "unknown model 'no-such-model'; known are"),
    ({"--sampler": "dpm"}, "'dpm' is not one of"),
    ({"--format": "avi"}, "'avi' is not one of"),
    ({"--width": "wide"}, "'--width'"),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    """Bad input costs no loading: exit code 2, the reason on stderr, nothing on stdout, no traceback, no file."""
    monkeypatch.chdir(tmp_path)
    options = {"--prompt": "a ball", "--out": "film.mp4", "--model": str(tiny_wan)} | changes
    done = rushes(*[word for pair in options.items() for word in pair])
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_tells_every_option() -> None:
    """The help page names each option once."""
    done = rushes("--help")
    assert done.returncode == 0
    options = (
        "prompt out model negative-prompt width height num-frames fps steps guidance-scale flow-shift sampler seed"
    )
    for option in [*options.split(), "format", "json"]:
        assert f"--{option} " in done.stdout
