"""`rushes bench engine` times the same film on both sides, and says when it is not the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engines.bench.measured import find_measured
from engines.host import Host
from engines.package import FORMAT, INTERFACE, Manifest, sign
from tests.command_line import run_rushes


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_both_sides_make_the_same_film(tiny_wan: Path, backend: str) -> None:
    """Every stage of both was timed, ratios come with quartiles, and the frames agree to a rounding of 8 bits."""
    done = run_rushes("bench", "engine", "--model", str(tiny_wan), "--engine", backend, "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["stages"]) == {"text", "step", "decode"}
    for row in (*found["stages"].values(), found["end_to_end"]):
        assert row["ours_ms"] > 0
        assert row["stock_ms"] > 0
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["rounds"] == 3
    assert found["frames_apart"] <= 1.5 / 255
    assert (found["backend"], len(found["load"])) == (backend, 2)


def test_a_table_for_people(tiny_wan: Path) -> None:
    """Without --json: the stages, how many times as long stock takes, and the load."""
    done = run_rushes("bench", "engine", "--model", str(tiny_wan), "--rounds", "3")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("decode", "whole film", "times as long", "load"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rounds", "2"), "--rounds is 2; a median with its spread needs 3 or more"),
        (("--engine", "tensorflow"), "unknown engine 'tensorflow'"),
        (("--model", "no/such/model/at/all"), "unknown model"),
    ],
)
def test_mistakes_are_one_sentence(tiny_wan: Path, options: tuple[str, str], told: str) -> None:
    """Exit code 2 and what would do."""
    given = () if options[0] == "--model" else ("--model", str(tiny_wan))
    done = run_rushes("bench", "engine", *given, *options)
    assert done.returncode == 2
    assert told in done.stderr


def test_the_best_is_the_quickest_that_was_built(tiny_wan: Path, tmp_path: Path) -> None:
    """By a build's own figures, of that model's that compute every step; without any build our operators uncompiled."""
    assert find_measured(tiny_wan, "best", tmp_path / "none").runs_by == "fused"
    for name, parent, step in (
        ("slow", "tiny-wan", 0.2),
        ("quick", "tiny-wan", 0.1),
        ("other", "another", 0.01),
        ("cached", "tiny-wan", 0.01),
    ):
        host = Host(system="Linux", machine="x86_64", device="cpu", device_name="", capability="AVX2")
        manifest = Manifest(
            format=FORMAT,
            interface=INTERFACE,
            name=name,
            backend="onnxruntime",
            recipe={},
            recipe_hash="0" * 64,
            parent_name=parent,
            parent="",
            host=host,
            parts={},
            quantization={},
            step_cache={"num_steps": 4, "reused": [2], "errors": []} if name == "cached" else {},
            costs=[{"step": step}],
            accuracy={},
            built_at="",
            files={},
        )
        (tmp_path / name).mkdir()
        sign(tmp_path / name, manifest, Ed25519PrivateKey.generate())
    found = find_measured(tiny_wan, "best", tmp_path)
    assert (found.name, found.folder, found.backend, found.runs_by) == (
        "quick",
        tmp_path / "quick",
        None,
        "onnxruntime",
    )
    assert find_measured(tiny_wan, str(tmp_path / "slow"), tmp_path).name == "slow"
    assert find_measured(tiny_wan, "eager", tmp_path).backend == "eager"
