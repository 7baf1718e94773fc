"""Text alignment's arithmetic on readings made by hand, the adversarial ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from post_train.data.diorama.asked import Asked, AskedObject
from post_train.data.diorama.vocabulary import Action, Camera, Ground, Sky, Weather
from post_train.rewards.base import Dimension, Film, RewardError, scored
from post_train.rewards.diorama import TextAlignment, alignment, certain
from post_train.rewards.judges import Belief, Judge
from post_train.rewards.reading import Reading
from tests.post_train.rewards.readings import reading, seen

RED_BALL = AskedObject(name="ball", colour="red", action=Action.MOVE_LEFT)
CAT = AskedObject(name="cat", action=Action.BOUNCE)
FULL = Asked(
    objects=(RED_BALL, CAT),
    ground=Ground.MEADOW,
    sky=Sky.CLEAR,
    weather=Weather.NONE,
    camera=Camera.STATIC,
    hills=True,
)
BALL_SEEN, CAT_SEEN = seen("ball", Action.MOVE_LEFT, "red"), seen("cat", Action.BOUNCE)


def _value(asked: Asked, shown: Reading) -> float:
    return alignment(asked, certain(shown)).value


def test_all_that_is_asked_is_worth_one() -> None:
    """Eleven things asked for and seen, in whatever order the judge lists the objects."""
    assert _value(FULL, reading(CAT_SEEN, BALL_SEEN)) == 1
    assert alignment(FULL, certain(reading(CAT_SEEN, BALL_SEEN))).noise == 0


@pytest.mark.parametrize(
    ("shown", "missed"),
    [
        (reading(seen("ball", Action.MOVE_LEFT, "blue"), CAT_SEEN), {"colour"}),
        (reading(seen("ball", Action.MOVE_RIGHT, "red"), CAT_SEEN), {"action"}),
        (reading(seen("ball", None, "red"), CAT_SEEN), {"action"}),
        (reading(seen("box", Action.MOVE_LEFT, "red"), CAT_SEEN), {"object", "colour", "action"}),
        (reading(BALL_SEEN), {"object", "action", "count"}),
        (reading(), {"object", "colour", "action", "count"}),
        (reading(BALL_SEEN, CAT_SEEN, seen("pig", Action.GROW)), {"count"}),
        (reading(BALL_SEEN, CAT_SEEN, CAT_SEEN), {"count"}),
        (reading(BALL_SEEN, CAT_SEEN, camera=Camera.PAN_LEFT), {"camera"}),
        (reading(BALL_SEEN, CAT_SEEN, ground=Ground.SEA), {"ground"}),
        (replace(reading(BALL_SEEN, CAT_SEEN), hills=False), {"hills"}),
        (replace(reading(BALL_SEEN, CAT_SEEN), weather=Weather.RAIN), {"weather"}),
        (replace(reading(BALL_SEEN, CAT_SEEN), sky=Sky.NIGHT), {"sky"}),
    ],
)
def test_what_is_wrong_costs_its_own_items(shown: Reading, missed: set[str]) -> None:
    """A wrong colour, a replaced, missing, extra or doubled object, a wrong place: each costs what it breaks."""
    found = alignment(FULL, certain(shown))
    parts = found.parts()
    assert {name for name, share in parts.items() if name != "expected" and share < 1} == missed
    assert found.value < 1


def test_only_what_is_asked_counts() -> None:
    """A short prompt says nothing of the place, so that any place will do; the count it does say."""
    short = Asked(objects=(AskedObject(name="cat"),))
    assert _value(short, reading(seen("cat", Action.GROW), ground=Ground.SEA, camera=Camera.ZOOM_IN)) == 1
    assert _value(short, reading(seen("cat", None), BALL_SEEN)) == 0.5
    assert _value(Asked(objects=(), sky=Sky.CLEAR), reading(BALL_SEEN, CAT_SEEN)) == 1


def test_two_of_a_kind_are_matched_by_what_fits_best() -> None:
    """A red and a blue ball are not mistaken for each other because of the order they are told in."""
    blue = AskedObject(name="ball", colour="blue", action=Action.BOUNCE)
    shown = reading(seen("ball", Action.BOUNCE, "blue"), BALL_SEEN)
    assert _value(Asked(objects=(RED_BALL, blue)), shown) == 1
    assert _value(Asked(objects=(blue, RED_BALL)), shown) == 1
    assert _value(Asked(objects=(RED_BALL, RED_BALL)), reading(BALL_SEEN)) < 1


def test_nothing_asked_is_refused() -> None:
    """There is no share of nothing."""
    with pytest.raises(ValueError, match="nothing is asked"):
        alignment(Asked(objects=()), certain(reading()))


def _doubting(shown: Reading, p: float) -> Belief:
    """A judge who gives every one of its answers the probability `p`."""
    sure = certain(shown)

    def softened(table: dict[str, float]) -> dict[str, float]:
        return dict.fromkeys(table, p)

    objects = tuple(
        replace(b, names=softened(b.names), colours=softened(b.colours), actions=softened(b.actions))
        for b in sure.objects
    )
    return replace(sure, objects=objects, place={k: softened(v) for k, v in sure.place.items()})


@given(p=st.floats(0.5, 1.0))
def test_noise_grows_with_doubt(p: float) -> None:
    """The stated error is zero for a certain judge, positive and below a half for a doubting one; the share stays."""
    found = alignment(FULL, _doubting(reading(BALL_SEEN, CAT_SEEN), p))
    assert found.value == 1
    assert 0 <= found.noise <= 0.5
    assert found.expected <= 1
    if p < 0.99:
        assert found.noise > 0
        assert found.expected < 1


def test_noise_is_the_error_over_many_films() -> None:
    """Films whose place shows what is asked with probability 0.8 each vary by the error that is stated."""
    asked = Asked(objects=(), ground=Ground.MEADOW, sky=Sky.CLEAR, weather=Weather.NONE, hills=True)
    stated = alignment(asked, _doubting(reading(), 0.8)).noise
    drawn = np.random.default_rng(0).random((20_000, 4)) < 0.8
    assert stated == pytest.approx(float(drawn.mean(1).std()), rel=0.03)


class _FixedJudge:
    """Reads the same off every film."""

    name, digest = "fixed", "0" * 16

    def __init__(self, shown: Reading) -> None:
        self.shown = shown

    def believe(self, films: Sequence[np.ndarray]) -> list[Belief]:
        return [certain(self.shown) for _ in films]


def _film(prompt: str, frames: int = 17) -> Film:
    return Film(name="one", prompt=prompt, frames=np.zeros((frames, 32, 32, 3), np.uint8), fps=8)


def _reward(shown: Reading) -> TextAlignment:
    return TextAlignment(cast("Judge", _FixedJudge(shown)))


def test_the_reward_scores_films_against_their_own_prompts() -> None:
    """Prompts are parsed, synonyms among them, and each film is held against its own."""
    reward = _reward(reading(BALL_SEEN))
    prompts = ["A crimson sphere rolls to the left on a lawn", "a blue ball rolls to the left", "a kitten"]
    scores = scored(reward, [_film(p) for p in prompts])
    assert [round(s.value, 3) for s in scores] == [1.0, 0.75, 0.5]
    assert scores[1].parts["colour"] == 0
    assert reward.dimension is Dimension.TEXT_ALIGNMENT
    assert reward.digest == "0" * 16


@pytest.mark.parametrize("prompt", ["", "something nice", "a unicorn gallops through Paris"])
def test_a_prompt_that_asks_for_nothing_known_stops_the_run(prompt: str) -> None:
    """There is no silent zero for a prompt that no judge can hold a film to."""
    with pytest.raises(RewardError, match="'one'"):
        _reward(reading(BALL_SEEN)).score([_film(prompt)])


def test_a_film_that_cannot_be_read_stops_the_run() -> None:
    """The judge's refusal names the reward and the film."""
    films = [replace(_film("a red ball"), name="whole"), replace(_film("a red ball", frames=3), name="stump")]
    with pytest.raises(RewardError, match="text-alignment-fixed") as refusal:
        _reward(reading(BALL_SEEN)).score(films)
    assert refusal.value.film == "stump"
