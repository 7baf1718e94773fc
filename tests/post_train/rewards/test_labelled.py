"""Labelled films: what people saw comes back as it was told, and what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from post_train.data.diorama.vocabulary import Action, Ground, Sky
from post_train.data.diorama.world import make_clip
from post_train.judge_runs import JudgeRun, measured_card
from post_train.labels_command import to_label
from post_train.rewards.judges_card import read_card
from post_train.rewards.labelled import LABELS, LabelError, blank_labels, read_film, read_labelled, write_film
from post_train.runs import BaseRun, load_vae, train_vae
from tests.post_train.small_judge import small_judge
from tests.post_train.small_recipes import options, small_base, small_vae


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model at small size, trained for a few steps."""
    root = tmp_path_factory.mktemp("model")
    train_vae(small_vae(), options(root / "vae"), lambda _: None)
    run = BaseRun(small_base(), options(root / "run"), vae=root / "vae" / "model")
    run.train(lambda _: None)
    run.export(root / "diorama")
    return root / "diorama"


def _write(folder: Path, *films: dict[str, Any]) -> Path:
    content = {"by": "a person", "weights": ["0"], "films": films}
    folder.mkdir(exist_ok=True)
    (folder / LABELS).write_text(json.dumps(content))
    for film in films:
        write_film(folder / f"{film['film']}.webp", make_clip(7).frames)
    return folder


def _label(**changes: Any) -> dict[str, Any]:
    label = {
        "film": "0000",
        "objects": [{"name": "ball", "colour": "red", "action": "bounce"}],
        "ground": "meadow",
        "sky": None,
        "weather": "none",
        "camera": "static",
        "hills": False,
    }
    return {**label, **changes}


def test_labels_come_back_as_they_were_told(tmp_path: Path) -> None:
    """What is null is asked of no judge; the film keeps its frames to within its compression."""
    (film,) = read_labelled(_write(tmp_path, _label()))
    (thing,) = film.shown.objects
    assert (thing.name, thing.colour, thing.action) == ("ball", "red", Action.BOUNCE)
    assert film.shown.ground is Ground.MEADOW
    assert film.shown.sky is None
    assert film.shown.hills is False
    true = make_clip(7).frames
    assert film.frames.shape == true.shape
    assert np.abs(film.frames.astype(int) - true).mean() < 6


def test_objects_that_nobody_can_tell_are_not_held_to_anything(tmp_path: Path) -> None:
    """Null objects leave out class, colour, action and count; a film of which nothing was told is left out whole."""
    nothing = {"objects": None, "ground": None, "sky": None, "weather": None, "camera": None, "hills": None}
    films = read_labelled(_write(tmp_path, _label(objects=None, sky="night"), _label(film="0001", **nothing)))
    assert [f.name for f in films] == ["0000"]
    assert films[0].shown.objects == ()
    assert films[0].shown.sky is Sky.NIGHT


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objects": [{"name": "unicorn"}]}, "object 'unicorn' is not one of this world's"),
        ({"objects": [{"name": "ball", "colour": "teal"}]}, "colour 'teal' is not one of this world's"),
        ({"ground": "moon"}, "films.0.ground"),
        ({"mood": "happy"}, "films.0.mood"),
    ],
)
def test_what_cannot_be_seen_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """A word outside the world's, or a field that is none, is named."""
    with pytest.raises(LabelError, match=sentence):
        read_labelled(_write(tmp_path, _label(**changes)))


def test_a_set_is_whole_or_refused(tmp_path: Path) -> None:
    """No labels, one film twice, a missing or broken film, a forgotten field: one sentence each."""
    with pytest.raises(LabelError, match="rushes train to-label"):
        read_labelled(tmp_path)
    with pytest.raises(LabelError, match="0000 more than once"):
        read_labelled(_write(tmp_path, _label(), _label()))
    short = _label()
    del short["hills"]
    with pytest.raises(LabelError, match=r"films\.0\.hills"):
        read_labelled(_write(tmp_path, short))
    _write(tmp_path, _label())
    (tmp_path / "0000.webp").write_bytes(b"RIFF")
    with pytest.raises(LabelError, match="cannot be read"):
        read_labelled(tmp_path)
    (tmp_path / "0000.webp").unlink()
    with pytest.raises(LabelError, match="cannot be read"):
        read_labelled(tmp_path)


def test_blank_labels_tell_nothing(tmp_path: Path) -> None:
    """A fresh set is valid and holds no judge to anything."""
    (tmp_path / LABELS).write_bytes(blank_labels(["0000", "0001"], "abc"))
    assert read_labelled(tmp_path) == []


def test_only_square_films(tmp_path: Path) -> None:
    """Frames lie below one another, so that only a square film can be told apart again."""
    with pytest.raises(LabelError, match="square"):
        write_film(tmp_path / "a.webp", np.zeros((5, 32, 48, 3), np.uint8))
    write_film(tmp_path / "b.webp", np.zeros((5, 32, 32, 3), np.uint8))
    assert read_film(tmp_path / "b.webp").shape == (5, 32, 32, 3)


@pytest.mark.timeout(300)
def test_films_to_label_tell_nothing_of_their_prompts(model: Path, tmp_path: Path) -> None:
    """Numbers alone: films, sheets and a blank labels.json, which is never written over."""
    out = tmp_path / "set"
    to_label(out, model=str(model), count=3, per_sheet=2)
    assert sorted(p.name for p in out.iterdir()) == [
        "0000.webp",
        "0001.webp",
        "0002.webp",
        LABELS,
        "sheet-0000.png",
        "sheet-0002.png",
    ]
    assert read_labelled(out) == []
    with pytest.raises(ValueError, match="is there already"):
        to_label(out, model=str(model), count=1)


@pytest.mark.timeout(300)
def test_a_card_tells_of_labelled_films(model: Path, tmp_path: Path) -> None:
    """With labels the card has a third condition, whose counts are those of what was told."""
    trained = JudgeRun(small_judge(), options(tmp_path / "run"), vae=model / "vae")
    trained.train(lambda _: None)
    labels = _write(tmp_path / "set", _label(), _label(film="0001", objects=None))
    vae = load_vae(model / "vae")
    card = measured_card(trained.folder, vae, lambda _: None, precision="fp32", clips=4, labels=labels)
    accuracy = card.conditions["labelled"].accuracy
    assert {k: a.n for k, a in accuracy.items()} == {
        "object": 1,
        "colour": 1,
        "action": 1,
        "count": 1,
        "ground": 2,
        "weather": 2,
        "camera": 2,
        "hills": 2,
    }
    assert read_card(trained.folder) == card
