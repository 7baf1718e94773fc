"""Every phrase that prompt parsing knows, with what it means: built from the vocabulary, widened by the thesaurus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from functools import cache

from post_train.data.diorama import thesaurus
from post_train.data.diorama.vocabulary import (
    CAMERA_PHRASES,
    COLOUR_SYNONYMS,
    COLOURS,
    GROUND_PHRASES,
    HILLS_PHRASES,
    OBJECTS,
    SKY_PHRASES,
    WEATHER_PHRASES,
    Action,
    Camera,
    Kind,
    Weather,
    action_phrases,
)


class Role(Enum):
    """What a phrase does in a sentence."""

    NOUN = auto()
    COLOUR = auto()
    VERB = auto()
    WAY = auto()
    GROUND = auto()
    SKY = auto()
    WEATHER = auto()
    HILLS = auto()
    CAMERA = auto()
    CAMERA_NOUN = auto()
    STILL = auto()
    DETERMINER = auto()
    PREPOSITION = auto()
    BESIDE = auto()
    PRONOUN = auto()
    AND = auto()
    NEGATION = auto()
    MODIFIER = auto()
    STOP = auto()


class Verb(StrEnum):
    """Verbs by what they need to name an action."""

    GO = "go"
    HOP = "hop"
    BOUNCE = "bounce"
    SPIN = "spin"
    TURN = "turn"
    GROW = "grow"
    SHRINK = "shrink"
    RISE = "rise"
    FALL = "fall"
    SWAY = "sway"
    COME = "come"
    GET = "get"
    PAN = "pan"
    STAND = "stand"


class Way(StrEnum):
    """Where a motion leads."""

    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    UP_AND_DOWN = "up and down"
    SIDE_TO_SIDE = "side to side"
    IN_PLACE = "in place"
    CLOSER = "closer"
    AWAY = "away"
    LARGER = "larger"
    SMALLER = "smaller"


class Form(Enum):
    """How a verb stands: `walks`, `walk` or `walking`."""

    FINITE = auto()
    BASE = auto()
    GERUND = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A phrase's part in a sentence; `form` is of verbs only, `plural` of nouns only."""

    role: Role
    value: str | bool | None = None
    form: Form = Form.FINITE
    plural: bool = False


Phrase = tuple[str, ...]

_ALONE = {
    Action.BOUNCE: Verb.BOUNCE,
    Action.SPIN: Verb.SPIN,
    Action.GROW: Verb.GROW,
    Action.SHRINK: Verb.SHRINK,
    Action.RISE: Verb.RISE,
    Action.FALL: Verb.FALL,
    Action.SWAY: Verb.SWAY,
}
_ACROSS = {
    Way.LEFT: ("from right to left", "right to left", "from the right", "from the right to the left", "to left"),
    Way.RIGHT: ("from left to right", "left to right", "from the left", "from the left to the right", "to right"),
}
_WATCHERS = ("us", "me", "the camera", "the viewer", "the screen", "camera", "viewer")
_WAYS: dict[Way, tuple[str, ...]] = {
    Way.UP: ("up", "upward", "upwards", "skyward", "skywards", "into the air", "up into the air", "up into the sky"),
    Way.DOWN: ("down", "downward", "downwards", "to the ground", "down to the ground"),
    Way.UP_AND_DOWN: ("up and down", "down and up"),
    Way.SIDE_TO_SIDE: (
        *("from side to side", "side to side", "back and forth", "to and fro", "left and right", "right and left"),
        *("from left to right and back", "to the left and right", "to the left and to the right"),
    ),
    Way.IN_PLACE: ("in place", "around", "on the spot", "round and round", "around itself", "on its axis"),
    Way.CLOSER: (
        *("closer", "nearer", "closer to", "nearer to"),
        *(f"{near} {who}" for near in ("towards", "to", "closer to", "up to", "near") for who in _WATCHERS),
    ),
    Way.AWAY: (
        *("away", "off", "farther away", "further away", "farther", "further", "far away", "into the distance"),
        *("off into the distance", "away into the distance"),
        *(f"away from {who}" for who in _WATCHERS),
    ),
    Way.LARGER: ("larger", "bigger", "bigger and bigger", "larger and larger"),
    Way.SMALLER: ("smaller", "smaller and smaller"),
}
_SLOWLY = ("", "slowly", "gently", "smoothly", "is", "is slowly", "quickly")


def base_of(third: str) -> str:
    """`walks` to `walk`, `flies` to `fly`, `goes` to `go`, `approaches` to `approach`."""
    if third.endswith("ies"):
        return third[:-3] + "y"
    return third[:-2] if third.endswith(("oes", "ches", "shes", "sses", "xes")) else third[:-1]


def _doubles(base: str) -> bool:
    """Whether a last consonant is doubled: one syllable, one vowel before it (`hop`, not `roll`, `float` or `grow`)."""
    vowels = [c in "aeiou" for c in base]
    return (
        len(base) > 2
        and vowels[-2]
        and not vowels[-1]
        and not vowels[-3]
        and sum(vowels) == 1
        and base[-1] not in "wxy"
    )


def _stem(base: str) -> str:
    if base.endswith("e") and not base.endswith("ee"):
        return base[:-1]
    return base + base[-1] if _doubles(base) else base


def verb_forms(third: str) -> Iterator[tuple[str, Form]]:
    """Every way to write the verb whose third person is `third`."""
    base = base_of(third)
    yield third, Form.FINITE
    yield base, Form.BASE
    yield _stem(base) + "ing", Form.GERUND
    yield (base[:-1] + "ied" if base.endswith("y") and base[-2] not in "aeiou" else _stem(base) + "ed"), Form.FINITE
    for typed, meant in thesaurus.IRREGULAR.items():
        if meant == third:
            yield typed, Form.FINITE


def plural_of(noun: str) -> str:
    """`butterfly` to `butterflies`, `box` to `boxes`, `fish` stays."""
    head, _, last = noun.rpartition(" ")
    if last in {"sheep", "fish"}:
        return noun
    if last in thesaurus.IRREGULAR_PLURALS:
        many = thesaurus.IRREGULAR_PLURALS[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + ("es" if last.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{head} {many}".strip()


def _travelling(action: Action, *kinds: Kind) -> set[tuple[str, str]]:
    """(verb, where) of every phrase that tells of `action`."""
    pairs = (p.split(" ", 1) for kind in kinds for p in action_phrases(action, kind))
    return {(verb, where) for verb, where in pairs}


def _verbs() -> dict[str, Verb]:
    """Each verb, in the third person, by its class."""
    groups = {
        Verb.GO: (*(v for v, _ in _travelling(Action.MOVE_LEFT, *Kind)), *thesaurus.GOING),
        Verb.HOP: (*(v for v, _ in _travelling(Action.HOP_LEFT, *Kind)), *thesaurus.HOPPING),
        Verb.SPIN: thesaurus.SPINNING,
        Verb.GROW: thesaurus.GROWING,
        Verb.SHRINK: thesaurus.SHRINKING,
        Verb.RISE: thesaurus.RISING,
        Verb.FALL: thesaurus.FALLING,
        Verb.SWAY: thesaurus.SWAYING,
        Verb.GET: thesaurus.GETTING,
        Verb.STAND: thesaurus.STANDING,
        Verb.PAN: ("pans",),
        Verb.TURN: ("turns",),
        Verb.COME: ("comes", "enters", "arrives"),
    }
    found = {verb: kind for kind, verbs in groups.items() for verb in verbs}
    for action, kind in _ALONE.items():
        found |= {p: kind for p in action_phrases(action, Kind.TOY) if " " not in p}
    return found


def _ways() -> Iterator[tuple[str, Way]]:
    for way, action in ((Way.LEFT, Action.MOVE_LEFT), (Way.RIGHT, Action.MOVE_RIGHT)):
        wheres = {where for _, where in _travelling(action, Kind.ANIMAL)}
        sides = (f"{to} the {way}{side}" for to in ("to", "towards", "off to") for side in ("", " side"))
        for where in (*wheres, *sides, *_ACROSS[way], f"{way}wards", f"towards {way}"):
            yield where, way
    for way, phrases in _WAYS.items():
        for phrase in phrases:
            yield phrase, way


def _camera() -> Iterator[tuple[str, Camera]]:
    for camera, phrases in CAMERA_PHRASES.items():
        yield from ((p, camera) for p in phrases)
    for camera, thirds in thesaurus.ZOOMS.items():
        for third in thirds:
            verb, where = third.split(" ")
            for form, _ in verb_forms(verb):
                for name in ("", "the camera ", "camera "):
                    for slowly in _SLOWLY:
                        told = f"{name}{slowly} {form} {where}".replace("  ", " ").strip()
                        yield told, camera
                        yield f"{told} on", camera
                    yield f"{name}{form} slowly {where}", camera
    yield from ((p, Camera.STATIC) for p in thesaurus.STILL_CAMERA)
    for still in thesaurus.STILL:
        for name in ("camera", "shot", "frame"):
            yield f"{still} {name}", Camera.STATIC


def _without_preposition(phrase: str) -> str:
    """`on a grassy meadow` to `grassy meadow`."""
    words = phrase.split(" ")
    while len(words) > 1 and words[0] in thesaurus.PREPOSITIONS | thesaurus.DETERMINERS | {"with"}:
        words = words[1:]
    return " ".join(words)


def _places() -> Iterator[tuple[str, Entry]]:
    for ground, phrases in GROUND_PHRASES.items():
        yield from ((p, Entry(role=Role.GROUND, value=ground)) for p in phrases)
        cores = (_without_preposition(p) for p in phrases)
        yield from ((c, Entry(role=Role.GROUND, value=ground)) for c in cores if c not in thesaurus.PREPOSED)
    yield from ((p, Entry(role=Role.GROUND, value=g)) for p, g in thesaurus.GROUNDS.items())
    for core, ground in thesaurus.PREPOSED.items():
        for preposition in sorted(thesaurus.PREPOSITIONS):
            for article in ("", "the ", "some "):
                yield f"{preposition} {article}{core}", Entry(role=Role.GROUND, value=ground)
    for sky, phrases in SKY_PHRASES.items():
        yield from ((_without_preposition(p), Entry(role=Role.SKY, value=sky)) for p in phrases)
    yield from ((p, Entry(role=Role.SKY, value=s)) for p, s in thesaurus.SKIES.items())
    for phrase in (*HILLS_PHRASES, *thesaurus.HILLS):
        yield _without_preposition(phrase), Entry(role=Role.HILLS, value=True)


def _weathers() -> Iterator[tuple[str, Entry]]:
    told = ((p, w) for w, phrases in WEATHER_PHRASES.items() for p in phrases)
    also = thesaurus.WEATHERS.items()
    for phrase, weather in (*told, *also):
        assert weather is not Weather.NONE
        for how in ("", "light ", "heavy ", "some "):
            yield how + phrase, Entry(role=Role.WEATHER, value=weather)


def _things() -> Iterator[tuple[str, Entry]]:
    for name, thing in OBJECTS.items():
        for noun in {n for known in (name, *thing.synonyms) for n in (known, known.replace("-", " "))}:
            yield plural_of(noun), Entry(role=Role.NOUN, value=name, plural=plural_of(noun) != noun)
            yield noun, Entry(role=Role.NOUN, value=name)
    for colour in COLOURS:
        for word in (colour, *COLOUR_SYNONYMS[colour]):
            yield word, Entry(role=Role.COLOUR, value=colour)


def _plain(role: Role, words: Iterable[str]) -> Iterator[tuple[str, Entry]]:
    return ((w, Entry(role=role)) for w in words)


def _entries() -> Iterator[tuple[str, Entry]]:
    """All phrases; a later one replaces an earlier one of the same words."""
    yield from _plain(Role.MODIFIER, thesaurus.MODIFIERS)
    yield from _plain(Role.STOP, thesaurus.STOP_WORDS)
    yield from _plain(Role.PREPOSITION, thesaurus.PREPOSITIONS)
    yield from _plain(Role.DETERMINER, thesaurus.DETERMINERS)
    yield from _plain(Role.BESIDE, thesaurus.BESIDE)
    yield from _plain(Role.NEGATION, thesaurus.NEGATIONS)
    yield from _plain(Role.AND, ("and", "&", "plus"))
    yield from _plain(Role.PRONOUN, ("it", "they"))
    yield from _plain(Role.CAMERA_NOUN, ("camera",))
    yield from _plain(Role.STILL, thesaurus.STILL)
    for third, verb in _verbs().items():
        head, _, particle = third.partition(" ")
        for form, how in verb_forms(head):
            yield f"{form} {particle}".strip(), Entry(role=Role.VERB, value=verb, form=how)
    yield from ((p, Entry(role=Role.WAY, value=w)) for p, w in _ways())
    yield from _places()
    yield from _weathers()
    yield from _things()
    yield from ((p, Entry(role=Role.CAMERA, value=c)) for p, c in _camera())


@cache
def phrases() -> dict[Phrase, Entry]:
    """Every known phrase, as its words, with its meaning."""
    return {tuple(text.split(" ")): entry for text, entry in _entries()}


@cache
def longest_phrase() -> int:
    """How many words the longest known phrase has."""
    return max(map(len, phrases()))


@cache
def known_words() -> frozenset[str]:
    """Every word of every known phrase."""
    return frozenset(word for phrase in phrases() for word in phrase)
