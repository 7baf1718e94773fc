"""Curation sees what is wrong with a clip in its pixels and its judge's reading, and balances what it keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.types import VideoSpec
from post_train.data.clip_measures import (
    ClipMeasures,
    attributes,
    blockiness,
    edge_margin,
    movement,
    shake,
    untold,
)
from post_train.data.curate import Candidates, MeasureFile, curate, measure
from post_train.data.curation import FILTERS, Emphasis, balanced_weights, emphasised_weights, faults, report, told
from post_train.data.diorama.asked import Asked, AskedObject, of_scene
from post_train.data.diorama.parse import parse_prompt
from post_train.data.diorama.record import Clip, Scene, Split
from post_train.data.diorama.render import render
from post_train.data.diorama.vocabulary import Action, Camera, Ground, Sky, Weather
from post_train.data.diorama.wild import weather_the_web
from post_train.data.diorama.world import make_clip
from post_train.data.diorama_clips import DioramaClips
from post_train.data.diorama_truth import wild_generator
from post_train.recipes.curation import diorama_curation
from post_train.rewards.base import Dimension, Film, RewardError, Score
from post_train.rewards.diorama import alignment, certain
from post_train.rewards.flow import dense_flow
from post_train.rewards.reading import Reading, SeenObject, SeenTrack

GOOD = ClipMeasures(
    name="good",
    alignment=1.0,
    untold=(),
    unread=(),
    shake=0.001,
    speed=0.04,
    still_share=0.0,
    brightness=120.0,
    sharpness=300.0,
    blockiness=1.0,
    edge_margin=0.05,
    attributes=("object:cat",),
)


def _reading(scene: Scene) -> Reading:
    """What a judge without fault would read."""
    objects = tuple(
        SeenObject(
            name=o.name,
            colour=o.colour,
            action=o.action,
            confidence=1.0,
            track=SeenTrack(x=o.track.x, y=o.track.y, size=o.track.size, presence=np.ones_like(o.track.x)),
        )
        for o in scene.objects
    )
    place = scene.scenery
    return Reading(
        objects=objects,
        ground=place.ground,
        sky=place.sky,
        weather=place.weather,
        camera=scene.camera,
        hills=place.hills,
    )


class FaultlessJudge:
    """Reads a clip of the world by knowing it: so that only the filters are tested, not a network."""

    name, digest, dimension = "faultless", "0" * 16, Dimension.TEXT_ALIGNMENT

    def __init__(self, clips: list[Clip]) -> None:
        self._scenes = {c.frames.tobytes(): c.scene for c in clips}
        self.reads = 0

    def read(self, films: list[NDArray[np.uint8]]) -> list[Reading]:
        self.reads += len(films)
        return [_reading(self._scenes[f.tobytes()]) for f in films]

    def score(self, films: list[Film]) -> list[Score]:
        beliefs = [certain(_reading(self._scenes[f.frames.tobytes()])) for f in films]
        asked = [parse_prompt(f.prompt).asked for f in films]
        return [Score(value=alignment(a, b).value, noise=0.0) for a, b in zip(asked, beliefs, strict=True)]


CANDIDATES = Candidates(first_seed=700_000, clips=64, side=64, num_frames=17)


@pytest.fixture(scope="module")
def judge() -> FaultlessJudge:
    """A judge that knows the candidates."""
    return FaultlessJudge([make_clip(s, split=Split.WILD) for s in CANDIDATES.seeds()])


@pytest.fixture(scope="module")
def measures(judge: FaultlessJudge, tmp_path_factory: pytest.TempPathFactory) -> dict[int, ClipMeasures]:
    """The candidates' measures."""
    folder = tmp_path_factory.mktemp("measures")
    return measure(CANDIDATES, folder, reader=judge, reward=judge, tell=lambda _: None)


@pytest.mark.parametrize(
    ("change", "filters"),
    [
        ({}, ()),
        ({"unread": ("unicorn",)}, ("unreadable caption",)),
        ({"alignment": 0.9}, ("caption disagrees",)),
        ({"alignment": float("nan")}, ("caption disagrees",)),
        ({"untold": ("camera",)}, ("caption incomplete",)),
        ({"shake": 0.03}, ("shaken",)),
        ({"speed": 0.0}, ("frozen",)),
        ({"still_share": 1.0, "speed": float("nan")}, ("frozen", "too fast")),
        ({"speed": 0.5}, ("too fast",)),
        ({"brightness": 3.0}, ("brightness",)),
        ({"brightness": 250.0}, ("brightness",)),
        ({"sharpness": 2.0}, ("blurred",)),
        ({"blockiness": 2.0}, ("compressed",)),
        ({"edge_margin": -0.1}, ("cut off",)),
    ],
)
def test_each_filter_drops_what_it_is_for(change: dict[str, object], filters: tuple[str, ...]) -> None:
    """One wrong figure is one filter's; what is no number is never kept."""
    assert faults(replace(GOOD, **change), diorama_curation()) == filters  # type: ignore[arg-type]


def test_the_truth_is_the_worlds_own() -> None:
    """The steps that find what is wrong with a wild clip end in its very frames and captions."""
    for seed in range(12):
        clip = make_clip(seed, split=Split.WILD)
        scene, rng, told_wrong = wild_generator(seed, 17)
        assert told_wrong == clip.captions.full.faults
        assert np.array_equal(weather_the_web(rng, render(scene, 64, 17)), clip.frames)


def test_filters_find_what_is_really_wrong(measures: dict[int, ClipMeasures]) -> None:
    """With a judge without fault, nearly every faulty, shaken, compressed or cut clip goes, and few others."""
    chosen, done = curate(CANDIDATES, diorama_curation(), measures, judge="0")
    by_name = {row.name: row for row in done.filters}
    # What is cut by less than a reader's boxes err is forgiven, and counts as missed here.
    for name, least in {"caption disagrees": 0.9, "shaken": 0.9, "compressed": 0.9, "cut off": 0.75}.items():
        recall = by_name[name].recall
        assert recall is not None, name
        assert recall >= least, (name, told(done))
    assert done.recall is not None
    assert done.precision is not None
    assert done.recall >= 0.95, told(done)
    assert done.precision >= 0.8, told(done)
    assert done.kept == len(chosen.seeds)


def test_measuring_goes_on_where_it_was(judge: FaultlessJudge, tmp_path: Path) -> None:
    """What a killed run measured is read back, its torn last line is made anew, and another judge begins afresh."""
    few = replace(CANDIDATES, clips=6)
    first = measure(few, tmp_path, reader=judge, reward=judge, tell=lambda _: None)
    path = MeasureFile(tmp_path, few, reader=judge, reward=judge).path
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:4]) + "\n" + lines[4][:30])
    before = judge.reads
    assert measure(few, tmp_path, reader=judge, reward=judge, tell=lambda _: None) == first
    assert judge.reads == before + 2
    other = FaultlessJudge([])
    other.digest = "1" * 16
    assert MeasureFile(tmp_path, few, reader=other, reward=judge).path != path


def test_a_reward_that_fails_stops_the_curation(judge: FaultlessJudge, tmp_path: Path) -> None:
    """A NaN is no low score: the error names reward and clip."""

    class Broken(FaultlessJudge):
        def score(self, films: list[Film]) -> list[Score]:
            return [Score(value=float("nan"), noise=0.0) for _ in films]

    with pytest.raises(RewardError, match=r"faultless.*700000"):
        measure(replace(CANDIDATES, clips=2), tmp_path, reader=judge, reward=Broken([]), tell=lambda _: None)


def test_the_list_trains(measures: dict[int, ClipMeasures], tmp_path: Path) -> None:
    """What curation writes is read as a source with its weights; one of another world is refused."""
    chosen, _ = curate(CANDIDATES, diorama_curation(), measures, judge="0")
    chosen.write(tmp_path / "list.json")
    clips = list(DioramaClips.curated(tmp_path / "list.json"))
    assert [c.weight for c in clips] == pytest.approx(chosen.weights, abs=1e-5)
    frames = clips[0].frames(VideoSpec(width=64, height=64, num_frames=17, fps=8))
    assert np.array_equal(frames, make_clip(chosen.seeds[0], split=Split.WILD).frames)
    content = json.loads((tmp_path / "list.json").read_text())
    (tmp_path / "list.json").write_text(json.dumps({**content, "world": 1}))
    with pytest.raises(ValueError, match="its seeds are of world 1"):
        DioramaClips.curated(tmp_path / "list.json")


def test_nothing_kept_is_an_error(measures: dict[int, ClipMeasures]) -> None:
    """Thresholds that nothing meets are told, not written as an empty list."""
    impossible = replace(diorama_curation(), min_alignment=2.0)
    with pytest.raises(ValueError, match="keeps none of 64 clips"):
        curate(CANDIDATES, impossible, measures, judge="0")


def test_shaking_is_seen_and_panning_is_not() -> None:
    """A clip whose camera pans or zooms has little jitter; the same clip, each frame displaced by a pixel, has much."""
    clips = (make_clip(s) for s in range(400))
    moving = [c for c in clips if c.scene.camera is not Camera.STATIC and c.scene.scenery.weather is Weather.NONE][:6]
    rng = np.random.default_rng(0)
    for clip in moving:
        offsets = rng.choice([-1.2, 1.2], (17, 2))
        shaken = np.stack(
            [
                cv2.warpAffine(f, np.array([[1, 0, x], [0, 1, y]]), (64, 64), borderMode=cv2.BORDER_REPLICATE)
                for f, (x, y) in zip(clip.frames, offsets, strict=True)
            ]
        ).astype(np.uint8)
        assert shake(clip.frames, dense_flow(clip.frames)) < 0.5 * shake(shaken, dense_flow(shaken))
        assert shake(shaken, dense_flow(shaken)) > diorama_curation().max_shake


def test_compression_is_seen_and_a_frozen_clip_too() -> None:
    """JPEG at quality 60 raises the blockiness beyond the threshold; equal frames have a still share of one."""
    for seed in range(4):
        frames = make_clip(seed).frames
        coded = [cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 60])[1] for f in frames]
        lossy = np.stack([np.asarray(cv2.imdecode(c, cv2.IMREAD_COLOR), np.uint8) for c in coded])
        assert blockiness(frames) < diorama_curation().max_blockiness < blockiness(lossy)
        frozen = np.repeat(frames[:1], 17, axis=0)
        assert movement(frozen, dense_flow(frozen)) == (0.0, 1.0)


def test_what_a_caption_leaves_out_is_named() -> None:
    """A second object, a moving camera, weather and hills that show and are not told."""
    scene = make_clip(3).scene
    seen = replace(_reading(scene), camera=Camera.PAN_LEFT, hills=True, weather=Weather.SNOW)
    asked = Asked(objects=(), ground=Ground(scene.scenery.ground), sky=Sky(scene.scenery.sky))
    assert untold(asked, seen) == ("count", "camera", "weather", "hills")
    assert untold(of_scene(scene), _reading(scene)) == ()


def test_the_edge_is_met_by_the_box() -> None:
    """The margin is the least over frames on which the object is seen, and 1 when there is none."""
    ones = np.ones(5, np.float32)
    track = SeenTrack(
        x=0.5 * ones,
        y=np.array([0.5, 0.5, 0.95, 0.5, 0.5], np.float32),
        size=0.2 * ones,
        presence=np.array([1, 1, 1, 1, 0], np.float32),
    )
    thing = SeenObject(name="cat", colour=None, action=Action.SPIN, confidence=1.0, track=track)
    empty = replace(_reading(make_clip(3).scene), objects=())
    assert edge_margin(replace(empty, objects=(thing,))) == pytest.approx(-0.05)
    assert edge_margin(empty) == 1.0


def test_what_the_model_is_worst_at_gets_its_share() -> None:
    """Clips with the attribute get that share of the draws, whatever their number; among themselves nothing changes."""
    names = [("count:1",), ("count:1", "sky:night"), ("count:2",), ("count:2",)]
    weights = emphasised_weights([1.0, 2.0, 0.5, 0.5], names, Emphasis(attribute="count:2", share=0.75))
    assert sum(weights) == pytest.approx(4.0)
    assert sum(weights[2:]) == pytest.approx(3.0)
    assert weights[1] == pytest.approx(2 * weights[0])
    assert emphasised_weights([1.0, 2.0], names[:2], None) == [1.0, 2.0]
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="a share is between"):
            emphasised_weights([1.0] * 4, names, Emphasis(attribute="count:2", share=share))
    with pytest.raises(ValueError, match="0 of 2 clips have count:2"):
        emphasised_weights([1.0] * 2, names[:2], Emphasis(attribute="count:2", share=0.5))


def test_further_candidates_are_those_asked_for(judge: FaultlessJudge, tmp_path: Path) -> None:
    """After the first clips only captions with the attribute are measured, as found by reading them."""
    some = replace(CANDIDATES, clips=4, further=12, further_with="count:2")
    measures = measure(some, tmp_path, reader=judge, reward=judge, tell=lambda _: None)
    first = range(CANDIDATES.first_seed, CANDIDATES.first_seed + 16)
    captions = {s: make_clip(s, split=Split.WILD).captions.full.text for s in first}
    two = [s for s in first[4:] if len(parse_prompt(captions[s]).asked.objects) == 2]
    assert list(measures) == [*first[:4], *two]
    assert 0 < len(two) < 12


def test_rare_clips_weigh_more_within_the_cap() -> None:
    """Weights have mean 1, grow with rarity, and never leave the cap; equal attributes weigh alike."""
    common, rare = ("object:cat", "ground:meadow"), ("object:owl", "ground:meadow")
    weights = balanced_weights([common] * 9 + [rare], max_weight=2.0)
    assert sum(weights) == pytest.approx(10)
    assert weights[0] == weights[8] < weights[9]
    assert weights[9] / weights[0] <= 4.0
    assert balanced_weights([common] * 3, max_weight=3.0) == pytest.approx([1.0] * 3)
    assert balanced_weights([], max_weight=3.0) == []
    with pytest.raises(ValueError, match="a cap on weights"):
        balanced_weights([common], max_weight=0.5)


def test_attributes_are_what_is_asked() -> None:
    """Objects, colours, actions and place, by name; what is open counts as open."""
    asked = Asked(objects=(AskedObject(name="ball", colour="red", action=Action.SPIN),), ground=None)
    assert {"object:ball", "colour:red", "action:spin", "count:1", "ground:None"} <= set(attributes(asked))


def test_the_report_counts() -> None:
    """Precision and recall against a truth, None without one or where nothing can be divided."""
    found = {"a": ("shaken",), "b": ("shaken", "cut off"), "c": (), "d": ()}
    truth = {n: {"shaken": n in "ac", "cut off": n == "b"} for n in "abcd"}
    done = report(found, truth)
    rows = {row.name: row for row in done.filters}
    assert (done.measured, done.kept) == (4, 2)
    assert (rows["shaken"].dropped, rows["shaken"].alone) == (2, 1)
    assert (rows["shaken"].precision, rows["shaken"].recall) == (0.5, 0.5)
    assert (rows["cut off"].precision, rows["cut off"].recall) == (1.0, 1.0)
    assert rows["blurred"].precision is None
    assert (done.precision, done.recall) == (1.0, pytest.approx(2 / 3))
    assert report(found).filters[0].precision is None
    assert all(name in told(done) for name in FILTERS)
    with pytest.raises(ValueError, match="lacks 3 of the clips"):
        report(found, {"a": truth["a"]})
