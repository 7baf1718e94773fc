"""Text alignment on Diorama: the share of what the user's prompt asks for that a judge sees in the film."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from post_train.data.diorama.asked import Asked, AskedObject
from post_train.data.diorama.parse import ParsedPrompt, parse_prompt
from post_train.rewards.base import Dimension, Film, RewardError, Score
from post_train.rewards.judges import Belief, Judge, JudgeError, ObjectBelief, check_film
from post_train.rewards.reading import Reading, SeenObject


class Attribute(StrEnum):
    """The kinds of things that a prompt can ask for."""

    OBJECT = "object"
    COLOUR = "colour"
    ACTION = "action"
    COUNT = "count"
    GROUND = "ground"
    SKY = "sky"
    WEATHER = "weather"
    CAMERA = "camera"
    HILLS = "hills"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that is asked for, whether the judge sees it, and the probability that it does show.

    `which` is the object asked for, in the prompt's order; None for what belongs to the whole film.
    """

    attribute: Attribute
    present: bool
    chance: float
    which: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """All items of a prompt; `value` is the share that is present, `expected` the mean probability, for training."""

    items: tuple[Item, ...]

    @property
    def value(self) -> float:
        return sum(i.present for i in self.items) / len(self.items)

    @property
    def expected(self) -> float:
        return sum(i.chance for i in self.items) / len(self.items)

    @property
    def noise(self) -> float:
        """The standard error of `value` by the judge's own probabilities: how often it errs where it is that sure.

        What is asked of one object stands or falls with the object, so its items count as wholly correlated; other
        items are independent. A judge that is surely wrong says nothing of it here: the accuracy card does.
        """
        groups: dict[int, float] = {}
        single = 0.0
        for item in self.items:
            wrong = 1 - item.chance if item.present else item.chance
            deviation = math.sqrt(max(0.0, wrong * (1 - wrong)))
            if item.which is None:
                single += deviation**2
            else:
                groups[item.which] = groups.get(item.which, 0.0) + deviation
        return math.sqrt(single + sum(d**2 for d in groups.values())) / len(self.items)

    def parts(self) -> dict[str, float]:
        """The share present of each attribute that is asked for, and `expected`."""
        shares: dict[str, float] = {}
        for attribute in Attribute:
            own = [i.present for i in self.items if i.attribute is attribute]
            if own:
                shares[attribute.value] = sum(own) / len(own)
        return {**shares, "expected": self.expected}


def alignment(asked: Asked, belief: Belief) -> Alignment:
    """Holds what is asked against what is seen. ValueError when nothing is asked.

    Of an object that is not seen, colour and action are not there either. One extra, missing or doubled object costs
    the count.
    """
    if asked.nothing:
        raise ValueError("nothing is asked for that this world can show")
    items: list[Item] = []
    matched = _matched(asked.objects, belief.reading.objects)
    for index, thing in enumerate(asked.objects):
        items.extend(_object_items(index, thing, matched[index], belief))
    if asked.objects:
        items.append(_count(len(asked.objects), belief))
    items.extend(_place_items(asked, belief))
    return Alignment(items=tuple(items))


def certain(reading: Reading) -> Belief:
    """`reading` as a belief without doubt, for readings that come without probabilities."""
    return Belief(
        reading=reading,
        objects=tuple(
            ObjectBelief(
                there=1.0,
                names={o.name: 1.0},
                colours={o.colour: 1.0} if o.colour else {},
                actions={o.action.value if o.action else "none": 1.0},
            )
            for o in reading.objects
        ),
        doubtful=(),
        place={name: {str(getattr(reading, name)): 1.0} for name in ("ground", "sky", "weather", "camera", "hills")},
    )


def _hits(asked: AskedObject, seen: SeenObject) -> int:
    """How much of `asked` the object `seen` fulfils; 0 when it is of another class."""
    if seen.name != asked.name:
        return 0
    coloured = asked.colour is not None and seen.colour == asked.colour
    acting = asked.action is not None and seen.action is asked.action
    return 1 + coloured + acting


def _matched(asked: Sequence[AskedObject], seen: Sequence[SeenObject]) -> list[int | None]:
    """For each object asked for the index of the seen one that answers it, best pairs first; each answers once."""
    answers: list[int | None] = [None] * len(asked)
    pairs = ((_hits(a, s), -i, -j) for i, a in enumerate(asked) for j, s in enumerate(seen))
    for hits, i, j in sorted(pairs, reverse=True):
        if hits and answers[-i] is None and -j not in answers:
            answers[-i] = -j
    return answers


def _object_items(index: int, asked: AskedObject, at: int | None, belief: Belief) -> list[Item]:
    seen = None if at is None else belief.reading.objects[at]
    chances = _chances(asked, at, belief)
    hits = {
        Attribute.OBJECT: seen is not None,
        Attribute.COLOUR: seen is not None and seen.colour == asked.colour,
        Attribute.ACTION: seen is not None and seen.action is asked.action,
    }
    return [Item(attribute=a, present=hits[a], chance=p, which=index) for a, p in chances.items()]


def _chances(asked: AskedObject, at: int | None, belief: Belief) -> dict[Attribute, float]:
    """The probability of each thing that is asked of an object, by the belief about the one that answers it.

    If none does, by the likeliest of all others, the doubtful among them.
    """
    if at is None:
        taken = [b for b in (*belief.objects, *belief.doubtful) if b.there * b.names.get(asked.name, 0.0) > 0]
        best = max(taken, key=lambda b: b.there * b.names[asked.name], default=None)
    else:
        best = belief.objects[at]
    there = 0.0 if best is None else best.there * best.names.get(asked.name, 0.0)
    chances = {Attribute.OBJECT: there}
    if asked.colour is not None:
        chances[Attribute.COLOUR] = there * (best.colours.get(asked.colour, 0.0) if best else 0.0)
    if asked.action is not None:
        chances[Attribute.ACTION] = there * (best.actions.get(asked.action.value, 0.0) if best else 0.0)
    return chances


def _count(wanted: int, belief: Belief) -> Item:
    """The number of objects, its probability summed over which of all candidates are there."""
    odds = [1.0]
    for candidate in (*belief.objects, *belief.doubtful):
        p = candidate.there
        odds = [a * (1 - p) + b * p for a, b in zip([*odds, 0.0], [0.0, *odds], strict=True)]
    return Item(
        attribute=Attribute.COUNT,
        present=len(belief.reading.objects) == wanted,
        chance=odds[wanted] if wanted < len(odds) else 0.0,
    )


def _place_items(asked: Asked, belief: Belief) -> list[Item]:
    items: list[Item] = []
    for attribute in (Attribute.GROUND, Attribute.SKY, Attribute.WEATHER, Attribute.CAMERA, Attribute.HILLS):
        wanted = getattr(asked, attribute.value)
        if wanted is None:
            continue
        present = getattr(belief.reading, attribute.value) == wanted
        chance = belief.place[attribute.value].get(str(wanted), 0.0)
        items.append(Item(attribute=attribute, present=present, chance=chance))
    return items


class TextAlignment:
    """The reward: films are scored against their own prompts by one judge.

    `value` is the share, `noise` the judge's standard error on that film (see Alignment.noise). `parts` has the share
    of each attribute kind, and `expected`, a smooth version of the share for training by it.
    """

    dimension = Dimension.TEXT_ALIGNMENT

    def __init__(self, judge: Judge, *, parse: Callable[[str], ParsedPrompt] = parse_prompt) -> None:
        self.judge, self.parse = judge, parse
        self.name = f"text-alignment-{judge.name}"
        self.digest = judge.digest

    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film; RewardError for a prompt that cannot be wholly read, or a film that cannot."""
        asked = [self._asked(film) for film in films]
        for film in films:
            self._check(film)
        beliefs = self.judge.believe([f.frames for f in films])
        found = [alignment(a, b) for a, b in zip(asked, beliefs, strict=True)]
        return [Score(value=f.value, noise=f.noise, parts=f.parts()) for f in found]

    def _asked(self, film: Film) -> Asked:
        parsed = self.parse(film.prompt)
        if parsed.unread:
            words = ", ".join(repr(w) for w in parsed.unread)
            raise RewardError(self.name, film.name, f"its prompt has words that no judge can hold it to: {words}")
        if parsed.asked.nothing:
            raise RewardError(self.name, film.name, f"its prompt {film.prompt!r} asks for nothing of this world")
        return parsed.asked

    def _check(self, film: Film) -> None:
        try:
            check_film(film.frames)
        except JudgeError as error:
            raise RewardError(self.name, film.name, str(error)) from error
