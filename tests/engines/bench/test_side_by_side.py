"""`rushes bench engine` times the same film on both sides, and says when it is not the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run_rushes


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_both_sides_make_the_same_film(tiny_wan: Path, backend: str) -> None:
    """Every stage of both was timed, ratios come with quartiles, and the frames agree to a rounding of 8 bits."""
    done = run_rushes("bench", "engine", "--model", str(tiny_wan), "--backend", backend, "--rounds", "3", "--json")
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
        (("--backend", "tensorflow"), "unknown backend 'tensorflow'"),
        (("--model", "no/such/model/at/all"), "unknown model"),
    ],
)
def test_mistakes_are_one_sentence(tiny_wan: Path, options: tuple[str, str], told: str) -> None:
    """Exit code 2 and what would do."""
    given = () if options[0] == "--model" else ("--model", str(tiny_wan))
    done = run_rushes("bench", "engine", *given, *options)
    assert done.returncode == 2
    assert told in done.stderr
