"""Prompts are read as a person means them, and what cannot be read is said and never passed over in silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from post_train.data.diorama.asked import Asked, of_scene
from post_train.data.diorama.captions import captions_of
from post_train.data.diorama.compose import compose
from post_train.data.diorama.lexicon import known_words
from post_train.data.diorama.parse import ParsedPrompt, parse_prompt
from post_train.data.diorama.record import Captions, Scene, Split
from post_train.data.diorama.vocabulary import ACTIONS_OF, OBJECTS, Camera, Weather, action_phrases

_CLIPS = 2000


def _told(scene: Scene) -> Asked:
    """All that a full caption says: nobody writes that there are no hills, no weather and no camera move."""
    truth = of_scene(scene)
    return replace(
        truth,
        hills=truth.hills or None,
        camera=None if truth.camera is Camera.STATIC else truth.camera,
        weather=None if truth.weather is Weather.NONE else truth.weather,
    )


@pytest.fixture(scope="module")
def told() -> list[tuple[Scene, Captions]]:
    pairs = []
    for seed in range(_CLIPS):
        rng = np.random.default_rng((77, seed))
        scene = compose(rng, 9, Split.CLEAN)
        pairs.append((scene, captions_of(rng, scene, careless=False)))
    return pairs


def test_a_full_caption_asks_for_its_whole_scene(told: list[tuple[Scene, Captions]]) -> None:
    """Every attribute of thousands of scenes, bound to the right object, and not a word left over."""
    for scene, captions in told:
        parsed = parse_prompt(captions.full.text)
        assert parsed == ParsedPrompt(asked=_told(scene)), captions.full.text


def test_shorter_captions_ask_for_what_they_say(told: list[tuple[Scene, Captions]]) -> None:
    """Short texts name every action, vague ones some; nothing is asked for that the scene does not show."""
    for scene, captions in told:
        for level, text in (("short", captions.short.text), ("vague", captions.vague.text)):
            parsed, truth = parse_prompt(text), _told(scene)
            assert parsed.readable, text
            assert [(o.name, o.colour) for o in parsed.asked.objects] == [(o.name, o.colour) for o in truth.objects]
            for asked, true in zip(parsed.asked.objects, truth.objects, strict=True):
                assert asked.action == true.action or (level == "vague" and asked.action is None), text
            for what in ("ground", "sky", "weather", "camera", "hills"):
                assert getattr(parsed.asked, what) in {None, getattr(truth, what)}, text
            assert parsed.asked.weather is parsed.asked.camera is None


def test_every_phrase_of_every_object_is_read() -> None:
    """Each synonym with each way to tell each action, in the simplest sentence there is."""
    for name, thing in OBJECTS.items():
        for noun in (name, *thing.synonyms):
            for action in ACTIONS_OF[thing.kind]:
                for phrase in action_phrases(action, thing.kind):
                    asked = parse_prompt(f"A {noun.upper()} {phrase}!").asked
                    assert [(o.name, o.action) for o in asked.objects] == [(name, action)], (noun, phrase)


def _summary(text: str) -> str:
    """What was read, in one line, objects first: `red ball:move_left, cat | ground=snow`."""
    asked = parse_prompt(text).asked
    things = ", ".join(
        " ".join(filter(None, (o.colour, o.name))) + (f":{o.action}" if o.action else "") for o in asked.objects
    )
    places = (f"{k}={getattr(asked, k)}" for k in ("ground", "sky", "weather", "camera", "hills"))
    return " | ".join(filter(None, (things, *(p for p in places if not p.endswith("None")))))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        # orders and forms
        ("rolling to the left, a red ball", "red ball:move_left"),
        ("to the left rolls a crimson sphere", "red ball:move_left"),
        ("up goes the balloon", "balloon:rise"),
        ("a spinning red cube next to a bouncing ball", "red box:spin, ball:bounce"),
        ("A cat is walking to the left. The camera pans to the right.", "cat:move_left | camera=pan_right"),
        ("sheep hopping right on autumn leaves at dawn", "sheep:hop_right | ground=autumn | sky=dawn"),
        # two objects
        ("a red ball rolls left and a blue ball rolls right", "red ball:move_left, blue ball:move_right"),
        ("the red ball rolls left, and the blue ball to the right", "red ball:move_left, blue ball:move_right"),
        ("a cat and a penguin walk left", "cat:move_left, penguin:move_left"),
        ("a cat and a red ball rolls left", "cat, red ball:move_left"),
        ("a red ball and a green box, the ball rolls left and the box falls", "red ball:move_left, green box:fall"),
        ("a cat and a tree. The cat jumps up and down. The tree sways.", "cat:bounce, tree:sway"),
        # colours and their nouns
        ("an orange ball bounces", "orange ball:bounce"),
        ("the ball is red and the box is blue", "red ball, blue box"),
        ("a ball that is red rolls left", "red ball:move_left"),
        ("a golden ball on golden sand", "yellow ball | ground=desert"),
        ("red ball, blue sky, green grass, bouncing", "red ball:bounce | ground=meadow | sky=clear"),
        # snow: ground, weather, man
        ("a snowman in the snow, it snows", "snowman | ground=snow | weather=snow"),
        ("a cow on the snow falls down", "cow:fall | ground=snow"),
        ("snow is falling on a meadow, a cow comes closer", "cow:grow | ground=meadow | weather=snow"),
        ("light snow falls as a penguin hops left", "penguin:hop_left | weather=snow"),
        # words that collide
        ("a boat rocks on the sea", "sailboat:sway | ground=sea"),
        ("a frog on rocks", "frog | ground=rock"),
        ("a flying saucer flying left", "flying saucer:move_left"),
        ("a sailing boat sailing left at sea", "sailboat:move_left | ground=sea"),
        ("a jet flies away from us at sunset", "airplane:shrink | sky=sunset"),
        ("the coach drives to the right at night", "bus:move_right | sky=night"),
        ("a calf moves away", "cow:shrink"),
        ("a robot turns around", "robot:spin"),
        ("a present falls from the sky", "gift:fall"),
        ("a train comes from the left", "train:move_right"),
        ("a plane flies over the ocean from left to right", "airplane:move_right | ground=sea"),
        ("an elephant grows smaller and smaller", "elephant:shrink"),
        # the camera
        ("the camera moves left, a car drives right", "car:move_right | camera=pan_left"),
        ("a car drives right while the camera moves to the left", "car:move_right | camera=pan_left"),
        ("a cat walks toward the camera", "cat:grow"),
        ("zoom out: a tree sways in the wind", "tree:sway | camera=zoom_out"),
        ("static shot of a guitar spinning", "guitar:spin | camera=static"),
        ("the camera does not move", "camera=static"),
        ("hills in the distance, a cow moves into the distance", "cow:shrink | hills=True"),
    ],
)
def test_free_phrasing_is_understood(text: str, meant: str) -> None:
    """What people type in other orders and other words means what they mean by it, in either case."""
    assert parse_prompt(text).readable, parse_prompt(text)
    assert _summary(text) == meant
    assert _summary(text.upper()) == meant


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("two cats walking left", ("two",)),
        ("3 balls", ("3",)),
        ("a unicorn walks left", ("unicorn", "walks left")),
        ("a purple elephant walks left", ("purple elephant",)),
        ("a red and blue ball", ("red ball", "blue ball")),
        ("a cat walks left and then shrinks", ("shrinks",)),
        ("a ball on a box", ("on box",)),
        ("no rain, a cat walks left", ("no rain",)),
        ("a cat without hills", ("without hills",)),
        ("a cat stands still", ("stands", "still")),
        ("a robot turns left", ("turns left",)),
        ("a ball to the left", ("to the left",)),
        ("a cat on a meadow at sea", ("at sea",)),
        ("a cat, snow", ("snow",)),
        ("purple grass", ("purple grass",)),
        ("кот идёт налево", ("кот", "идёт", "налево")),
        ("🐱 bounces", ("🐱", "bounces")),
    ],
)
def test_what_is_not_of_this_world_is_said(text: str, unread: tuple[str, ...]) -> None:
    """Such a prompt is not readable: half of it would get full marks."""
    parsed = parse_prompt(text)
    assert parsed.unread == unread
    assert not parsed.readable


@pytest.mark.parametrize("text", ["", "   ", "?!", "a video of", "small and cute"])
def test_a_prompt_that_asks_for_nothing_is_not_readable(text: str) -> None:
    """There is nothing to score it against, and nothing in it was misread."""
    assert parse_prompt(text).asked.nothing
    assert not parse_prompt(text).readable


def test_what_no_judge_measures_is_passed_over_aloud() -> None:
    """Size, speed, number by plural and a walk without direction are listed; the rest of the prompt is scored."""
    parsed = parse_prompt("a small kitten walks slowly in the snow beside balloons")
    assert parsed.readable
    assert parsed.passed_over == ("small", "slowly", "balloons", "walks")
    assert parsed.asked.objects[0].action is None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(sorted(known_words())), max_size=20).map(" ".join)))
def test_nothing_that_is_typed_breaks_it(text: str) -> None:
    """Any text gives an answer, the same one twice, and never makes up more objects than it has words."""
    parsed = parse_prompt(text)
    assert parsed == parse_prompt(text)
    assert len(parsed.asked.objects) <= len(text.split()) + text.count("-") or not text.isascii()
