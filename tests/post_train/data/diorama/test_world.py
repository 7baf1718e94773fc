"""The world promises that what a caption says is on the screen, and that a clip is a pure function of its seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from post_train.data.diorama.holdout import held_out_triple
from post_train.data.diorama.observe import apart, inside_frame, seen_action
from post_train.data.diorama.record import Clip, Scene, SceneObject, Split
from post_train.data.diorama.render import render
from post_train.data.diorama.vocabulary import (
    ACTIONS_OF,
    CAMERA_PHRASES,
    COLOUR_SYNONYMS,
    COLOURS,
    HILLS_PHRASES,
    OBJECTS,
    SKY_PHRASES,
    WEATHER_PHRASES,
    Action,
    Camera,
    Ground,
    Kind,
    Weather,
    action_phrases,
    ground_phrases,
    grounds_of,
    weathers_of,
)
from post_train.data.diorama.world import make_captions, make_clip

SEEDS = range(300)


@pytest.fixture(scope="module")
def clean() -> list[Clip]:
    return [make_clip(seed, side=32) for seed in SEEDS]


def _nouns(thing: SceneObject) -> list[str]:
    names = (thing.name, *OBJECTS[thing.name].synonyms)
    if thing.colour is None:
        return list(names)
    return [f"{c} {n}" for c in (thing.colour, *COLOUR_SYNONYMS[thing.colour]) for n in names]


def _told(text: str, phrases: tuple[str, ...] | list[str]) -> bool:
    return any(p in text for p in phrases)


def test_a_clip_is_a_function_of_its_seed() -> None:
    """The same seed gives the same frames, tracks and words; another seed, another clip."""
    first, again, other = (make_clip(s, split=Split.WILD) for s in (5, 5, 6))
    assert np.array_equal(first.frames, again.frames)
    assert first.captions == again.captions
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize(("side", "num_frames"), [(32, 9), (64, 17), (48, 33), (128, 5)])
def test_any_size_is_drawn(side: int, num_frames: int) -> None:
    """Nothing assumes 64 pixels or 17 frames."""
    clip = make_clip(3, side=side, num_frames=num_frames)
    assert clip.frames.shape == (num_frames, side, side, 3)
    assert clip.frames.dtype == np.uint8


@pytest.mark.parametrize("split", Split)
def test_captions_alone_are_those_of_the_clip(split: Split) -> None:
    """What is told of a clip needs no picture, and is the same."""
    for seed in range(20):
        assert make_captions(seed, split=split) == make_clip(seed, side=32, split=split).captions


@pytest.mark.parametrize(("seed", "side", "num_frames"), [(-1, 64, 17), (0, 16, 17), (0, 64, 4)])
def test_what_cannot_be_drawn_is_refused(seed: int, side: int, num_frames: int) -> None:
    """A negative seed, or a clip too small to tell actions apart, is refused in a sentence."""
    with pytest.raises(ValueError, match=r"must not be negative|needs a side|needs at least 5 frames"):
        make_clip(seed, side=side, num_frames=num_frames)


def test_every_action_is_seen_on_the_screen(clean: list[Clip]) -> None:
    """Each object's action is what its screen track shows, whatever the camera does."""
    for clip in clean:
        for thing in clip.scene.objects:
            assert seen_action(thing.track) is thing.action, (clip.seed, thing.name)


def test_objects_are_whole_and_apart(clean: list[Clip]) -> None:
    """On clean clips no object leaves the frame and none covers another."""
    for clip in clean:
        tracks = [o.track for o in clip.scene.objects]
        assert all(inside_frame(t, 0.0) for t in tracks), clip.seed
        assert len(tracks) == 1 or apart(*tracks), clip.seed


def test_the_full_caption_tells_everything(clean: list[Clip]) -> None:
    """Objects with colour and action, ground, sky, hills, weather and a moving camera are all named."""
    for clip in clean:
        text, scene = clip.captions.full.text.lower(), clip.scene
        flying = all(o.kind is Kind.FLYER for o in scene.objects)
        for thing in scene.objects:
            assert _told(text, _nouns(thing)), text
            assert _told(text, action_phrases(thing.action, thing.kind)), text
        assert _told(text, ground_phrases(scene.scenery.ground, flying=flying)), text
        assert _told(text, SKY_PHRASES[scene.scenery.sky]), text
        assert _told(text, HILLS_PHRASES) is scene.scenery.hills, text
        moving = scene.camera is not Camera.STATIC
        assert _told(text, CAMERA_PHRASES[scene.camera]) is moving, text
        for weather in (Weather.SNOW, Weather.RAIN):
            assert _told(text, WEATHER_PHRASES[weather]) is (scene.scenery.weather is weather), text
        assert clip.captions.full.faults == ()


def test_captions_grow_vaguer(clean: list[Clip]) -> None:
    """The short caption keeps objects and actions, the vague one only nouns and perhaps an action."""
    lengths = np.array(
        [[len(c.text) for c in (k.captions.full, k.captions.short, k.captions.vague)] for k in clean]
    ).mean(0)
    assert lengths[0] > 1.4 * lengths[1] > 1.4 * 1.4 * lengths[2]
    for clip in clean:
        short, vague = clip.captions.short.text, clip.captions.vague.text
        for thing in clip.scene.objects:
            assert _told(short, _nouns(thing))
            assert _told(vague, _nouns(thing))


def test_nothing_stands_where_it_would_not(clean: list[Clip]) -> None:
    """Swimmers and boats are at sea, cats are not; rain and snow fall only where they can."""
    for clip in clean:
        place = clip.scene.scenery
        assert place.weather in weathers_of(place.ground, place.sky)
        for thing in clip.scene.objects:
            assert place.ground in grounds_of(thing.kind)
            assert thing.action in ACTIONS_OF[thing.kind]
    assert grounds_of(Kind.SWIMMER) == (Ground.SEA,)
    assert Ground.SEA not in grounds_of(Kind.ANIMAL)


def test_the_world_is_covered() -> None:
    """A few thousand scenes show every object, colour and action."""
    clips = [make_clip(seed, side=32, num_frames=5 + 4) for seed in range(10_000, 11_200)]
    things = [o for c in clips for o in c.scene.objects]
    assert {o.name for o in things} == set(OBJECTS)
    assert {o.colour for o in things} - {None} == set(COLOURS)
    assert {o.action for o in things} == set(Action)
    assert {c.scene.camera for c in clips} == set(Camera)


def _footprint(scene: Scene, index: int) -> tuple[float, float]:
    """Where the pixels of the scene's first object are, by drawing it on an empty and on a full stage."""
    side, frames = 64, 17
    lifted = replace(scene.objects[0].track, height=np.full(frames, 10.0, np.float32))
    thing = replace(scene.objects[0], track=lifted)
    with_it = render(replace(scene, objects=(thing,)), side, frames)[index].astype(int)
    without = render(replace(scene, objects=()), side, frames)[index].astype(int)
    rows, columns = np.where(np.abs(with_it - without).sum(-1) > 24)
    return (columns.min() + columns.max() + 1) / 2 / side, (rows.min() + rows.max() + 1) / 2 / side


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 8, 13, 21])
def test_the_track_is_where_the_pixels_are(seed: int) -> None:
    """In the first, middle and last frame the drawn object's box is centred on its track."""
    scene = make_clip(seed).scene
    track = scene.objects[0].track
    for index in (0, 8, 16):
        x, y = _footprint(scene, index)
        size = float(track.size[index])
        assert abs(x - float(track.x[index])) < 0.3 * size
        assert abs(y - float(track.y[index])) < 0.3 * size


def test_the_wild_split_errs_as_often_as_it_says() -> None:
    """About 15 % of wild full captions tell one attribute wrongly, some objects are cut off, and the truth knows it."""
    clips = [make_clip(seed, side=32, split=Split.WILD) for seed in range(600)]
    faulty = [c for c in clips if c.captions.full.faults]
    assert 0.10 < len(faulty) / len(clips) < 0.20
    assert {f for c in faulty for f in c.captions.full.faults} >= {"colour", "action", "object", "ground", "sky"}
    cut = [c for c in clips if not all(inside_frame(o.track, 0.0) for o in c.scene.objects)]
    assert 0.01 < len(cut) / len(clips) < 0.25


def test_a_still_or_cancelled_object_shows_no_action() -> None:
    """An object that stands still on the screen is never said to move."""
    track = make_clip(0).scene.objects[0].track
    flat = np.full_like(track.x, 0.5)
    still = replace(track, x=flat, y=flat, size=flat * 0.5, angle=flat * 0)
    assert seen_action(still) is None


def test_held_out_compositions_stay_out_of_training(clean: list[Clip]) -> None:
    """No ordinary clip, clean or wild, shows a held-out (object, action, ground), and every held-out clip shows one."""

    def shown(clip: Clip) -> bool:
        return any(held_out_triple(o.name, o.action, clip.scene.scenery.ground) for o in clip.scene.objects)

    wild = [make_clip(seed, side=32, num_frames=9, split=Split.WILD) for seed in range(300)]
    assert not any(shown(c) for c in [*clean, *wild])
    assert all(shown(make_clip(seed, side=32, num_frames=9, held_out=True)) for seed in range(40))
