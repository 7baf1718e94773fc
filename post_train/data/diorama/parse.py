"""Reads what a prompt asks for, in the words of the Diorama world, and says which of its words it could not read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from post_train.data.diorama.asked import Asked, AskedObject
from post_train.data.diorama.lexicon import Entry, Form, Role, Verb, Way, known_words, longest_phrase, phrases
from post_train.data.diorama.motions import OPEN, action_of, camera_of
from post_train.data.diorama.thesaurus import NATURAL_COLOURS, SPELLINGS
from post_train.data.diorama.vocabulary import OBJECTS, Action, Camera, Ground, Sky


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPrompt:
    """What a prompt asks for.

    `unread` are its words that carry meaning but are not of this world ("two", "unicorn", a second action of one
    object): whoever scores such a prompt would give full marks for half of it. `passed_over` are words that no judge
    measures (size, speed, taste, a walk without direction); the rest of such a prompt can be scored.
    """

    asked: Asked
    unread: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether a film can be scored against all that this prompt says."""
        return not self.unread and not self.asked.nothing


def parse_prompt(text: str) -> ParsedPrompt:
    """What `text` asks for; never raises, whatever is typed."""
    reader = _Reader()
    for phrase, entry in _tokens(text):
        reader.read(phrase, entry)
    return reader.finish()


_TOKEN = re.compile(r"\w+(?:['-]+\w+)*|\n+|[^\w\s]")
_BREAKS, _COMMAS, _SILENT = frozenset(".;:!?…"), frozenset(",-\u2013\u2014()/"), frozenset("\"'`*_#[]{}")


def _words(text: str) -> list[str]:
    """Lower-case words and punctuation; a hyphened word that is unknown as such becomes its parts."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate({0x2018: "'", 0x2019: "'", 0x2011: "-"})
    words: list[str] = []
    for token in map(str, _TOKEN.findall(plain)):
        spelled = SPELLINGS.get(token, token)
        words += (
            spelled.split(" ") if "-" not in spelled or spelled in known_words() else re.findall(r"[^\W-]+", spelled)
        )
    return words


def _tokens(text: str) -> list[tuple[str, Entry | None]]:
    """The longest known phrases from left to right, with what they mean; None for what is not known."""
    words, known, found, at = _words(text), phrases(), [], 0
    while at < len(words):
        for length in range(min(longest_phrase(), len(words) - at), 0, -1):
            entry = known.get(tuple(words[at : at + length]))
            if entry is not None or length == 1:
                found.append((" ".join(words[at : at + length]), entry))
                at += length
                break
    return found


@dataclass(slots=True, kw_only=True)
class _Motion:
    """A verb whose way may still come; `targets` are objects by index, None for the camera, [] for the next noun."""

    text: str
    verb: Verb
    targets: list[int] | None
    way: Way | None = None


@dataclass(slots=True)
class _Reader:
    """Goes through a prompt's phrases once, and keeps what is not yet bound."""

    objects: list[AskedObject] = field(default_factory=list)
    place: Asked = field(default_factory=lambda: Asked(objects=()))
    unread: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)  # objects of this sentence that no verb has taken yet
    colours: list[tuple[str, str]] = field(default_factory=list)
    motion: _Motion | None = None
    way: tuple[str, Way] | None = None  # told before its verb
    preposition: str = ""
    negation: str = ""
    still: str = ""
    of_camera: bool = False
    definite: bool = False
    before: Role | None = None

    def read(self, text: str, entry: Entry | None) -> None:
        """Take the next phrase."""
        if entry is None:
            self._read_unknown(text)
        elif self.negation and entry.role not in {Role.DETERMINER, Role.MODIFIER, Role.STOP, Role.PREPOSITION}:
            self.unread.append(f"{self.negation} {text}")
            self.negation = ""
        else:
            _READERS[entry.role](self, text, entry)
            if entry.role is not Role.MODIFIER:
                self.before = entry.role

    def finish(self) -> ParsedPrompt:
        """What was read, once there is no more."""
        self._end_sentence()
        asked = replace(self.place, objects=tuple(self.objects))
        return ParsedPrompt(asked=asked, unread=tuple(self.unread), passed_over=tuple(self.passed_over))

    def _read_unknown(self, text: str) -> None:
        if text in _BREAKS or text.startswith("\n"):
            self._end_sentence()
        elif text in _COMMAS:
            self.of_camera, self.preposition, self.before = False, "", None
        elif text not in _SILENT:
            self.unread.append(f"{self.negation} {text}".strip())
            self.negation, self.preposition, self.before = "", "", None

    def _end_sentence(self) -> None:
        self._settle()
        self._colours_behind()
        for left_over in (self.negation, self.still, self.way[0] if self.way else ""):
            if left_over:
                self.unread.append(left_over)
        self.way, self.negation, self.still, self.preposition = None, "", "", ""
        self.of_camera, self.before = False, None
        self.waiting.clear()

    def read_noun(self, text: str, entry: Entry) -> None:
        assert isinstance(entry.value, str)
        self.of_camera = False
        if self.preposition:
            self.unread.append(f"{self.preposition} {text}")
        if entry.plural:
            self.passed_over.append(text)
        index = self._mention(entry.value, self._colour_for(text, coloured=OBJECTS[entry.value].coloured))
        self.preposition, self.definite = "", False
        if self.motion is not None and self.motion.targets == []:
            self.motion.targets = [index]
        elif index in self.waiting:
            self.waiting = [index]  # named again, it alone is what the next verb tells of
        else:
            self.waiting.append(index)

    def _mention(self, name: str, colour: str | None) -> int:
        """The object's index: a new one, or with a definite article the one that was named before."""
        for index, known in enumerate(self.objects):
            if self.definite and known.name == name and colour in {None, known.colour}:
                return index
        self.objects.append(AskedObject(name=name, colour=colour))
        return len(self.objects) - 1

    def _colour_for(self, noun: str, *, coloured: bool) -> str | None:
        """The one colour told before a noun; more of them, or one of what has no choice, are not read."""
        told, self.colours = self.colours, []
        if coloured and len(told) == 1:
            return told[0][1]
        self.unread += [f"{text} {noun}" for text, _ in told]
        return None

    def _colours_behind(self) -> None:
        """Gives colours that no noun followed to the noun before them: `a ball that is red`."""
        told, self.colours = self.colours, []
        last = self.objects[-1] if self.objects else None
        if len(told) == 1 and last is not None and OBJECTS[last.name].coloured and last.colour is None:
            self.objects[-1] = replace(last, colour=told[0][1])
        else:
            self.unread += [text for text, _ in told]

    def read_colour(self, text: str, entry: Entry) -> None:
        self.colours.append((text, str(entry.value)))

    def read_verb(self, text: str, entry: Entry) -> None:
        self._settle()
        verb, gerund = Verb(str(entry.value)), entry.form is Form.GERUND
        attributive = gerund and self.before in {Role.DETERMINER, Role.COLOUR}
        if not attributive:
            self._colours_behind()
        targets = None if self.of_camera or verb is Verb.PAN else self._doers(entry.form, attributive=attributive)
        self.motion = _Motion(text=text, verb=verb, targets=targets)
        if self.way is not None:
            self.motion.text, self.motion.way = f"{text} {self.way[0]}", self.way[1]
        self.way, self.preposition = None, ""

    def _doers(self, form: Form, *, attributive: bool) -> list[int]:
        """Whom a verb tells of: those who wait for one ("a cat and a frog walk", but "a frog walks"), or who comes."""
        if attributive or not self.objects or (form is Form.GERUND and not self.waiting):
            return []
        doers = self.waiting[-1:] if form is Form.FINITE else list(self.waiting)
        self.waiting.clear()
        return doers or [len(self.objects) - 1]

    def read_way(self, text: str, entry: Entry) -> None:
        way = Way(str(entry.value))
        self.preposition = ""
        if self.motion is None:
            if self.way is not None:
                self.unread.append(self.way[0])
            self.way = (text, way)
        elif self.motion.way in {None, way}:
            self.motion.text, self.motion.way = f"{self.motion.text} {text}", way
        elif self.waiting:
            # "the red ball rolls left and the blue one to the right": the verb is told once for both.
            verb, targets = self.motion.verb, self.waiting[-1:]
            self._settle()
            self.waiting.clear()
            self.motion = _Motion(text=text, verb=verb, targets=targets, way=way)
        else:
            self.unread.append(text)

    def _settle(self) -> None:
        """Binds the motion that was being told, now that nothing more can be said about it."""
        motion, self.motion = self.motion, None
        if motion is None:
            return
        if motion.targets is None:
            self._film(motion.text, camera_of(motion.verb, motion.way))
            return
        action = action_of(motion.verb, motion.way)
        if action is None or not motion.targets:
            open_way = motion.way is None and motion.verb in OPEN and motion.targets
            (self.passed_over if open_way else self.unread).append(motion.text)
            return
        for index in motion.targets:
            self._act(index, action, motion.text)

    def _act(self, index: int, action: Action, text: str) -> None:
        thing = self.objects[index]
        if thing.action in {None, action}:
            self.objects[index] = replace(thing, action=action)
        else:
            self.unread.append(text)

    def _film(self, text: str, camera: Camera | None) -> None:
        if camera is None or self.place.camera not in {None, camera}:
            self.unread.append(text)
        else:
            self.place = replace(self.place, camera=camera)

    def read_camera(self, text: str, entry: Entry) -> None:
        self._settle()
        assert isinstance(entry.value, Camera)
        self._film(text, entry.value)
        self.preposition = ""

    def read_camera_noun(self, text: str, _: Entry) -> None:
        self._settle()
        if self.still:
            self._film(f"{self.still} {text}", Camera.STATIC)
            self.still = ""
        self.of_camera, self.preposition = True, ""

    def read_still(self, text: str, _: Entry) -> None:
        if self.of_camera:
            self.motion = None if self.motion is not None and self.motion.verb is Verb.STAND else self.motion
            self._settle()
            self._film(text, Camera.STATIC)
        else:
            self.still = text

    def read_somewhere(self, text: str, entry: Entry) -> None:
        """A ground, sky, weather or hills; a second one that differs is not read."""
        names = {Role.GROUND: "ground", Role.SKY: "sky", Role.WEATHER: "weather", Role.HILLS: "hills"}
        self.preposition, self.definite = "", False
        if isinstance(entry.value, (Ground, Sky)):
            natural = NATURAL_COLOURS[entry.value]
            self.unread += [f"{c} {text}" for c, meant in self.colours if c not in natural and meant not in natural]
            self.colours.clear()
        if getattr(self.place, names[entry.role]) not in {None, entry.value}:
            self.unread.append(text)
        else:
            self.place = replace(self.place, **{names[entry.role]: entry.value})

    def read_determiner(self, text: str, _: Entry) -> None:
        self._colours_behind()
        self.definite = text in {"the", "this", "that"}

    def read_preposition(self, text: str, _: Entry) -> None:
        self.preposition = text

    def read_pronoun(self, _text: str, _: Entry) -> None:
        self._settle()
        if self.objects and not self.waiting:
            self.waiting.append(len(self.objects) - 1)

    def read_negation(self, text: str, _: Entry) -> None:
        self.negation = text

    def read_modifier(self, text: str, _: Entry) -> None:
        self.passed_over.append(text)

    def read_silent(self, _text: str, _: Entry) -> None:
        self.preposition = ""


_READERS: dict[Role, Callable[[_Reader, str, Entry], None]] = {
    Role.NOUN: _Reader.read_noun,
    Role.COLOUR: _Reader.read_colour,
    Role.VERB: _Reader.read_verb,
    Role.WAY: _Reader.read_way,
    Role.GROUND: _Reader.read_somewhere,
    Role.SKY: _Reader.read_somewhere,
    Role.WEATHER: _Reader.read_somewhere,
    Role.HILLS: _Reader.read_somewhere,
    Role.CAMERA: _Reader.read_camera,
    Role.CAMERA_NOUN: _Reader.read_camera_noun,
    Role.STILL: _Reader.read_still,
    Role.DETERMINER: _Reader.read_determiner,
    Role.PREPOSITION: _Reader.read_preposition,
    Role.PRONOUN: _Reader.read_pronoun,
    Role.NEGATION: _Reader.read_negation,
    Role.MODIFIER: _Reader.read_modifier,
    Role.BESIDE: _Reader.read_silent,
    Role.AND: _Reader.read_silent,
    Role.STOP: _Reader.read_silent,
}
