"""Judges held against spoilt clips: who sees a change wins its pairs, who is blind to it wins none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from post_train.data.diorama.corruptions import CORRUPTIONS
from post_train.evaluation import judging
from post_train.evaluation.commands import evaluate
from post_train.evaluation.scoring import Judges
from post_train.evaluation.spoilt import hold_against_spoilt
from post_train.rewards.base import Dimension, RewardError
from tests.post_train.evaluation.simple_rewards import simple_judges


def test_a_sharp_eye_wins_and_a_blind_one_does_not() -> None:
    """Change over time tells a frozen clip from a moving one every time; a constant never does: a tie is no win."""
    judges = simple_judges()
    found = {(w.kind, w.dimension): w for w in hold_against_spoilt(judges, 6, lambda *_: None)}
    frozen = found["frozen", Dimension.MOTION_QUALITY]
    assert (frozen.won, frozen.n) == (6, 6)
    judges.rewards[1].measure = lambda _: 1.0  # type: ignore[attr-defined]
    blind = {(w.kind, w.dimension): w for w in hold_against_spoilt(judges, 6, lambda *_: None)}
    assert blind["frozen", Dimension.MOTION_QUALITY].won == 0


def test_every_kind_is_asked_for_what_it_hurts() -> None:
    """Each corruption is held against the dimensions it hurts and no other; what a clip has not got makes no pair."""
    found = hold_against_spoilt(simple_judges(), 6, lambda *_: None)
    assert {(w.kind, w.dimension) for w in found} <= {(c.name, d) for c in CORRUPTIONS.values() for d in c.hurts}
    assert {w.kind for w in found} >= set(CORRUPTIONS) - {
        "wrong_colour",
        "backwards",
        "mirrored",
        "teleport",
        "doubling",
    }
    assert all(w.kept_out == CORRUPTIONS[w.kind].kept_out for w in found)
    pairs = {w.kind: w.n for w in found}
    assert pairs["frozen"] == 6
    assert pairs.get("wrong_colour", 0) < 6


def test_a_judge_that_fails_stops_it() -> None:
    """A score that is no number is an error that names the clip."""
    judges = simple_judges()
    judges.rewards[0].measure = lambda _: float("nan")  # type: ignore[attr-defined]
    with pytest.raises(RewardError, match="clip 3300000000"):
        hold_against_spoilt(judges, 1, lambda *_: None)


def test_the_command_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rushes evaluate --spoilt` needs no models, and its files agree with what it prints."""
    judges: Judges = simple_judges()
    monkeypatch.setattr(judging, "load_judges", lambda _: judges)
    app = typer.Typer()
    app.command()(evaluate)
    done = CliRunner().invoke(app, ["--spoilt", "--n", "3", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "spoilt.json").read_text())
    assert json.loads(done.stdout) == told
    assert told["clips"] == 3
    frozen = next(w for w in told["wins"] if w["kind"] == "frozen" and w["dimension"] == "mq")
    assert f"| mq | frozen |  | {np.round(frozen['share'], 3):.3f} |" in (tmp_path / "spoilt.md").read_text()
