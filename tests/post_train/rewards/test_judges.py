"""Judges on disk and at work: digests, refusals, sizes, and the shipped ones on films they never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from post_train.data.diorama.asked import of_scene
from post_train.data.diorama.corruptions import named_corruption
from post_train.data.diorama.record import Clip
from post_train.data.diorama.world import make_clip
from post_train.rewards.base import Film, scored
from post_train.rewards.diorama import TextAlignment
from post_train.rewards.judges import (
    Judge,
    JudgeError,
    JudgeFacts,
    digest_of,
    judge_folder,
    judge_from,
    load_judge,
    save_judge,
)
from post_train.rewards.judges_card import measured, read_card
from post_train.rewards.judges_films import fitted, on_all_frames
from post_train.rewards.labelled import LABELLED, read_labelled
from post_train.rewards.reader import Reader, ReaderConfig
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.reading import SeenTrack
from post_train.rewards.roles import Role

SHIPPED = [role for role in Role if (judge_folder(role) / "config.json").is_file()]
_SEED = 3_300_000_000  # of clips that neither a judge nor its card has seen


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _facts(**changes: float) -> JudgeFacts:
    shape = ReaderConfig(mixing=Mixing.SHIFT, fine=8, width=16, depth=1, heads=1, fine_blocks=1, change_reach=2)
    return JudgeFacts(reader=shape, side=32, temperatures=dict(changes), origin={"seed": 1})


def _saved(folder: Path, **changes: float) -> Path:
    torch.manual_seed(0)
    facts = _facts(**changes)
    save_judge(folder, Reader(facts.reader), facts)
    return folder


def _films(*shapes: tuple[int, int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in shapes]


def test_a_judge_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    """Same digest, same facts, same belief; half a megabyte of fp16 safetensors and JSON, nothing left beside them."""
    folder = _saved(tmp_path / "one", action=1.5)
    one, two = judge_from(folder), judge_from(folder)
    (film,) = _films((9, 32, 32))
    assert one.digest == two.digest == digest_of(folder)
    assert one.facts == _facts(action=1.5)
    assert one.believe([film])[0].place == two.believe([film])[0].place
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["config.json", "reader.safetensors"]


def test_the_digest_names_weights_and_configuration(tmp_path: Path) -> None:
    """Another temperature or another weight is another judge."""
    first = digest_of(_saved(tmp_path / "a"))
    assert digest_of(_saved(tmp_path / "b")) == first
    assert digest_of(_saved(tmp_path / "c", action=2.0)) != first
    torch.manual_seed(1)
    save_judge(tmp_path / "d", Reader(_facts().reader), _facts())
    assert digest_of(tmp_path / "d") != first


def test_a_missing_judge_says_how_to_get_one(tmp_path: Path) -> None:
    """No weights: the command that trains them."""
    with pytest.raises(JudgeError, match="rushes train reward --judge reward"):
        judge_from(tmp_path / "reward")
    with pytest.raises(JudgeError, match="--measure"):
        read_card(_saved(tmp_path / "one"))
    with pytest.raises(ValueError, match="referee"):
        load_judge("referee")


@pytest.mark.parametrize(
    "film",
    [
        np.zeros((4, 64, 64, 3), np.uint8),
        np.zeros((17, 64, 64, 3), np.float32),
        np.zeros((17, 3, 64, 64), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((17, 16, 64, 3), np.uint8),
    ],
)
def test_what_is_no_film_is_refused(film: np.ndarray, tmp_path: Path) -> None:
    """Too few frames, another type or layout, too small: one sentence with what was seen."""
    with pytest.raises(JudgeError, match="a film"):
        judge_from(_saved(tmp_path / "one")).read([film])


def test_films_of_all_sizes_in_one_call_keep_their_order(tmp_path: Path) -> None:
    """Wide, tall, large, odd sizes and lengths together read as each of them alone."""
    judge = judge_from(_saved(tmp_path / "one"))
    films = _films((17, 64, 64), (9, 50, 97), (5, 128, 64), (17, 64, 64), (33, 33, 32))
    together = judge.believe(films)
    for film, belief in zip(films, together, strict=True):
        (alone,) = judge.believe([film])
        assert all(alone.place["sky"][k] == pytest.approx(p, abs=1e-4) for k, p in belief.place["sky"].items())
        assert all(len(o.track.x) == len(film) for o in belief.reading.objects)
    assert judge.read([]) == []


def test_a_long_film_is_read_by_frames_spread_over_it() -> None:
    """Of 81 frames 33 are read; the tracks come back on all of them, and presence is of the nearest frame read."""
    values = np.linspace(0, 1, 33, dtype=np.float32)
    read = SeenTrack(x=values, y=values, size=values, presence=(values > 0.5).astype(np.float32))
    track = on_all_frames(read, 81)
    assert fitted(np.zeros((81, 32, 32, 3), np.uint8), 32).shape == (33, 32, 32, 3)
    assert np.abs(track.x - np.linspace(0, 1, 81)).max() < 0.02
    assert set(track.presence[:40]) == {0.0}
    assert set(track.presence[42:]) == {1.0}
    assert on_all_frames(track, 17) is track


def test_weights_that_overflow_are_not_written(tmp_path: Path) -> None:
    """A judge that fp16 cannot hold is refused, and nothing is left."""
    reader = Reader(_facts().reader)
    reader.heat.weight.data.fill_(1e6)
    with pytest.raises(JudgeError, match=r"heat\.weight overflows fp16"):
        save_judge(tmp_path / "one", reader, _facts())
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Clips that no judge has seen."""
    return [make_clip(_SEED + i) for i in range(40)]


@pytest.mark.parametrize("role", SHIPPED)
def test_a_shipped_card_is_of_its_judge(role: Role) -> None:
    """The card names the digest of the very weights beside it, and rests on enough clips."""
    card, folder = read_card(judge_folder(role)), judge_folder(role)
    assert card.digest == digest_of(folder)
    assert json.loads((folder / "config.json").read_text())["origin"]["recipe"] == f"reward-{role}"
    for attribute in card.conditions["clean"].accuracy.values():
        assert attribute.n >= 100


@pytest.mark.parametrize("role", SHIPPED)
def test_a_shipped_judge_reads_what_it_never_saw(role: Role, clips: list[Clip]) -> None:
    """On fresh clips at least 95 % of every attribute is read, and true films earn at least 0.97."""
    found = measured(load_judge(role), [c.frames for c in clips], [of_scene(c.scene) for c in clips])
    assert found.mean_ta >= 0.97
    assert all(a.value >= 0.95 for a in found.accuracy.values() if a.n >= 20)


@pytest.mark.parametrize("role", SHIPPED)
@pytest.mark.parametrize("name", ["frozen", "backwards", "wrong_colour", "replaced", "removed"])
def test_an_untrue_clip_loses_to_the_true_one(role: Role, name: str, clips: list[Clip]) -> None:
    """Under its full caption the true clip has the higher text alignment."""
    reward, corruption = TextAlignment(load_judge(role)), named_corruption(name)
    pairs: list[tuple[Film, Film]] = []
    for clip in clips:
        harmed = corruption.of(clip, 1.0, np.random.default_rng(0))
        if harmed is not None and len(pairs) < 8:
            text = clip.captions.full.text
            pairs.append(
                (
                    Film(name=f"{clip.seed} true", prompt=text, frames=clip.frames, fps=8),
                    Film(name=f"{clip.seed} {name}", prompt=text, frames=harmed, fps=8),
                )
            )
    true, untrue = (scored(reward, side) for side in zip(*pairs, strict=True))
    assert len(pairs) >= 4
    assert sum(a.value > b.value for a, b in zip(true, untrue, strict=True)) >= len(pairs) - 1


@pytest.mark.parametrize("role", SHIPPED)
def test_a_shipped_judge_reads_larger_films(role: Role, clips: list[Clip]) -> None:
    """Films of twice the side, blown up or rendered so, read as well."""
    judge: Judge = load_judge(role)
    big = [make_clip(_SEED + i, side=128) for i in range(12)]
    assert measured(judge, [c.frames for c in big], [of_scene(c.scene) for c in big]).mean_ta >= 0.95
    blown = [np.stack([cv2.resize(f, (128, 128)) for f in c.frames]).astype(np.uint8) for c in clips[:12]]
    assert measured(judge, blown, [of_scene(c.scene) for c in clips[:12]]).mean_ta >= 0.95


@pytest.mark.parametrize("role", SHIPPED)
def test_a_shipped_judge_sees_what_labellers_saw(role: Role) -> None:
    """On 200 films of the base, labelled from pictures without their prompts, it agrees on 90 % of every attribute."""
    labelled = read_labelled(LABELLED)
    assert len(labelled) >= 200
    accuracy = read_card(judge_folder(role)).conditions["labelled"].accuracy
    asked = [film.shown for film in labelled]
    assert accuracy["ground"].n == sum(a.ground is not None for a in asked)
    assert accuracy["object"].n == sum(len(a.objects) for a in asked)
    assert all(a.value >= 0.9 for a in accuracy.values())


def test_and_says_so_again() -> None:
    """A fifth of those films, read anew by the reward judge, come out as its card has them, give or take a film."""
    labelled, card = read_labelled(LABELLED)[::5], read_card(judge_folder(Role.REWARD)).conditions["labelled"]
    found = measured(load_judge(Role.REWARD), [f.frames for f in labelled], [f.shown for f in labelled])
    for name, accuracy in found.accuracy.items():
        wrong = card.accuracy[name].n - card.accuracy[name].right
        assert accuracy.n - accuracy.right <= wrong
