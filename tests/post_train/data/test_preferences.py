"""Groups of films whose order is known, and the films of checkpoints that some of them hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from post_train.data.diorama.world import VERSION, make_clip
from post_train.data.model_films import FilmsWanted, ModelFilms, make_films, make_round_trips, read_films
from post_train.data.preferences import GROUP, Variety, group_of_clip, group_with_models, mixture

VARIETY = Variety(side=32, num_frames=9, window=5, enlarged=0.3, local=0.5, by_models=0.5, held=0.4)


def _takes(count: int) -> ModelFilms:
    """Films that are renders of other clips, weaker ones darker."""
    clips = [make_clip(100 + i, side=32, num_frames=9).frames for i in range(3)]
    takes = tuple(np.stack([c // (count - i) for c in clips]) for i in range(count))
    return ModelFilms(clip_seeds=(5, 6, 7), takes=takes, digest="d")


@pytest.mark.parametrize("seed", range(12))
def test_a_group_is_a_function_of_its_numbers(seed: int) -> None:
    """The same seed gives the same films; all are alike in size, and no pair is a film with itself."""
    first, again = (group_of_clip(seed, variety=VARIETY, rng=np.random.default_rng(seed)) for _ in range(2))
    assert len(first.films) == GROUP
    assert all(np.array_equal(a, b) for a, b in zip(first.films, again.films, strict=True))
    assert {f.shape for f in first.films} == {(5, 32, 32, 3)}
    assert {f.dtype for f in first.films} == {np.dtype(np.uint8)}
    for better, worse in first.pairs:
        assert 0 <= better < worse < GROUP
        assert not np.array_equal(first.films[better], first.films[worse])


def test_the_render_is_above_all_else() -> None:
    """Row 0 is the untouched render and wins over every other row."""
    plain = Variety(side=32, num_frames=9, window=9, enlarged=0.0, local=0.5, by_models=0.0, held=0.5)
    for seed in range(6):
        group = group_of_clip(seed, variety=plain, rng=np.random.default_rng(seed))
        render = make_clip(seed, side=32, num_frames=9).frames
        assert any(np.array_equal(group.films[0], v) for v in (render, render[:, :, ::-1]))
        assert {(0, row) for row in range(1, GROUP)} <= set(group.pairs)


def test_the_stronger_corruption_is_farther_from_the_render() -> None:
    """Of the graded rows the worse one lies farther from the render, nearly always."""
    farther = []
    for seed in range(40):
        films = group_of_clip(seed, variety=VARIETY, rng=np.random.default_rng(seed)).films
        for weak, strong in ((1, 2), (3, 4)):
            errors = [np.abs(films[i].astype(int) - films[0]).mean() for i in (weak, strong)]
            farther.append(errors[1] > errors[0])
    assert np.mean(farther) > 0.95


def test_a_mixture_may_spoil_only_a_part() -> None:
    """With every look local some pixels stay as they were; with none local, hardly any film keeps a quarter."""
    frames = make_clip(3, side=32, num_frames=9).frames
    kept = {
        share: [(mixture(frames, np.random.default_rng(i), share) == frames).all(-1).mean() for i in range(20)]
        for share in (0.0, 1.0)
    }
    assert np.mean(kept[1.0]) > np.mean(kept[0.0]) + 0.2


def test_films_by_models_lie_between_render_and_ruin() -> None:
    """The render beats them, the stronger checkpoint beats the weaker, and each beats its own spoilt copies."""
    films = _takes(3)
    for seed in range(12):
        group = group_with_models(films, seed % 3, variety=VARIETY, rng=np.random.default_rng(seed))
        assert {(0, 1), (0, 2), (1, 3), (3, 4), (1, 5), (2, 6)} <= set(group.pairs)
        if (1, 2) in group.pairs:
            assert group.films[1].mean() > group.films[2].mean()
        else:
            assert np.array_equal(group.films[1], group.films[2])


def test_a_single_checkpoint_has_no_weaker_one() -> None:
    """With one checkpoint nothing is said of its films among one another."""
    group = group_with_models(_takes(1), 0, variety=VARIETY, rng=np.random.default_rng(0))
    assert (1, 2) not in group.pairs


def test_films_are_made_by_the_serving_engine_and_read_back(tiny_wan: Path, tmp_path: Path) -> None:
    """Two strengths of one model, in the order of their folders' names, with all that they were made from."""
    told: list[str] = []
    for name, steps in (("01-more", 3), ("00-fewer", 1)):
        make_films(tiny_wan, tmp_path / name, FilmsWanted(first_clip=40, count=2, steps=steps), told.append)
    films = read_films(tmp_path)
    assert films.clip_seeds == (40, 41)
    assert [t.shape for t in films.takes] == [(2, 9, 32, 32, 3)] * 2
    assert not np.array_equal(films.takes[0], films.takes[1])
    facts = [json.loads((tmp_path / n / "films.json").read_text()) for n in ("00-fewer", "01-more")]
    assert [f["steps"] for f in facts] == [1, 3]
    assert facts[0]["weights"] == facts[1]["weights"]
    assert facts[0]["prompts"] == [make_clip(s, side=32).captions.full.text for s in (40, 41)]
    assert told == ["2 of 2 films"] * 2


def test_films_that_do_not_belong_together_are_refused(tiny_wan: Path, tmp_path: Path) -> None:
    """An empty folder, films of other clips, and films of another version of the world."""
    with pytest.raises(ValueError, match="holds no films"):
        read_films(tmp_path)
    make_films(tiny_wan, tmp_path / "00", FilmsWanted(first_clip=1, count=1, steps=1), lambda _: None)
    make_films(tiny_wan, tmp_path / "01", FilmsWanted(first_clip=2, count=1, steps=1), lambda _: None)
    with pytest.raises(ValueError, match="not of the same clips"):
        read_films(tmp_path)
    facts = tmp_path / "01" / "films.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "world_version": VERSION + 1}))
    with pytest.raises(ValueError, match=f"made for world {VERSION + 1}"):
        read_films(tmp_path)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 0)])
def test_films_that_cannot_be_are_refused(first: int, count: int) -> None:
    """A negative clip or no film at all."""
    with pytest.raises(ValueError, match="a clip that is not negative"):
        FilmsWanted(first_clip=first, count=count)


def test_round_trips_are_the_clips_through_the_vae(tiny_wan: Path, tmp_path: Path) -> None:
    """They stand beside films of the same clips, and differ from the clips as a random VAE makes them."""
    wanted = FilmsWanted(first_clip=40, count=2, steps=1)
    make_films(tiny_wan, tmp_path / "00", wanted, lambda _: None)
    make_round_trips(tiny_wan, tmp_path / "01", wanted)
    films = read_films(tmp_path)
    assert films.takes[1].shape == films.takes[0].shape
    assert not np.array_equal(films.takes[1][0], make_clip(40, side=32, num_frames=9).frames)
