"""The words of the Diorama world: every object, colour, action, place, weather and camera move, with its synonyms.

Data, captions, judges and prompt parsing all read this one module. Words that people type and no caption uses stand in
`thesaurus`, which only parsing reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an object is by nature: it decides how it moves, where it may stand and which verb tells of it."""

    ANIMAL = "animal"
    SWIMMER = "swimmer"
    BOAT = "boat"
    FLYER = "flyer"
    VEHICLE = "vehicle"
    PLANT = "plant"
    TOY = "toy"
    BALL = "ball"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectClass:
    """An object that the world can show; `emoji` is its code point in the sprite pack, None for the shaded shapes."""

    name: str
    kind: Kind
    emoji: str | None = None
    faces_left: bool = False
    synonyms: tuple[str, ...] = ()

    @property
    def coloured(self) -> bool:
        """Only the shaded shapes come in all colours; a sprite has the colours it was drawn in."""
        return self.emoji is None


def _sprite(name: str, kind: Kind, emoji: str, *synonyms: str, faces_left: bool = False) -> ObjectClass:
    return ObjectClass(name=name, kind=kind, emoji=emoji, synonyms=synonyms, faces_left=faces_left)


OBJECTS: dict[str, ObjectClass] = {
    o.name: o
    for o in (
        _sprite("cat", Kind.ANIMAL, "1f408", "kitten", "kitty", faces_left=True),
        _sprite("elephant", Kind.ANIMAL, "1f418", faces_left=True),
        _sprite("pig", Kind.ANIMAL, "1f416", "piglet", faces_left=True),
        _sprite("cow", Kind.ANIMAL, "1f404", "calf", faces_left=True),
        _sprite("sheep", Kind.ANIMAL, "1f411", "lamb", faces_left=True),
        _sprite("dinosaur", Kind.ANIMAL, "1f996", "t-rex", "tyrannosaurus", faces_left=True),
        _sprite("frog", Kind.ANIMAL, "1f438", "toad"),
        _sprite("turtle", Kind.ANIMAL, "1f422", "tortoise", faces_left=True),
        _sprite("snail", Kind.ANIMAL, "1f40c", faces_left=True),
        _sprite("penguin", Kind.ANIMAL, "1f427"),
        _sprite("crab", Kind.ANIMAL, "1f980"),
        _sprite("whale", Kind.SWIMMER, "1f433", faces_left=True),
        _sprite("fish", Kind.SWIMMER, "1f420", "tropical fish", faces_left=True),
        _sprite("sailboat", Kind.BOAT, "26f5", "sailing boat", "boat", "yacht"),
        _sprite("butterfly", Kind.FLYER, "1f98b"),
        _sprite("bee", Kind.FLYER, "1f41d", "honeybee", "bumblebee", faces_left=True),
        _sprite("airplane", Kind.FLYER, "2708-fe0f", "aeroplane", "plane", "jet", faces_left=True),
        _sprite("helicopter", Kind.FLYER, "1f681", "chopper", faces_left=True),
        _sprite("rocket", Kind.FLYER, "1f680", "spaceship"),
        _sprite("flying saucer", Kind.FLYER, "1f6f8", "ufo", "saucer"),
        _sprite("balloon", Kind.FLYER, "1f388"),
        _sprite("car", Kind.VEHICLE, "1f697", "automobile", faces_left=True),
        _sprite("bus", Kind.VEHICLE, "1f68c", "coach", faces_left=True),
        _sprite("tractor", Kind.VEHICLE, "1f69c", faces_left=True),
        _sprite("train", Kind.VEHICLE, "1f682", "locomotive", "steam engine", faces_left=True),
        _sprite("cactus", Kind.PLANT, "1f335"),
        _sprite("sunflower", Kind.PLANT, "1f33b"),
        _sprite("mushroom", Kind.PLANT, "1f344", "toadstool"),
        _sprite("tree", Kind.PLANT, "1f333"),
        _sprite("strawberry", Kind.TOY, "1f353"),
        _sprite("banana", Kind.TOY, "1f34c"),
        _sprite("cupcake", Kind.TOY, "1f9c1", "muffin"),
        _sprite("donut", Kind.TOY, "1f369", "doughnut"),
        _sprite("pumpkin", Kind.TOY, "1f383", "jack-o'-lantern"),
        _sprite("robot", Kind.TOY, "1f916"),
        _sprite("snowman", Kind.TOY, "26c4"),
        _sprite("guitar", Kind.TOY, "1f3b8"),
        _sprite("gift", Kind.TOY, "1f381", "present", "gift box"),
        ObjectClass(name="ball", kind=Kind.BALL, synonyms=("sphere",)),
        ObjectClass(name="box", kind=Kind.TOY, synonyms=("cube", "crate", "block")),
    )
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 45, 40),
    "blue": (45, 90, 225),
    "green": (50, 170, 70),
    "yellow": (245, 205, 50),
    "purple": (140, 60, 200),
    "orange": (245, 135, 40),
    "white": (238, 238, 238),
    "pink": (245, 120, 175),
}

COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "blue": ("azure",),
    "green": ("emerald",),
    "yellow": ("golden",),
    "purple": ("violet",),
    "orange": (),
    "white": (),
    "pink": ("rosy",),
}


class Action(StrEnum):
    """What an object is seen to do on the screen."""

    MOVE_LEFT = "move_left"
    MOVE_RIGHT = "move_right"
    HOP_LEFT = "hop_left"
    HOP_RIGHT = "hop_right"
    BOUNCE = "bounce"
    SPIN = "spin"
    GROW = "grow"
    SHRINK = "shrink"
    RISE = "rise"
    FALL = "fall"
    SWAY = "sway"


_TOY_ACTIONS = tuple(Action)

ACTIONS_OF: dict[Kind, tuple[Action, ...]] = {
    Kind.ANIMAL: (
        Action.MOVE_LEFT,
        Action.MOVE_RIGHT,
        Action.HOP_LEFT,
        Action.HOP_RIGHT,
        Action.BOUNCE,
        Action.GROW,
        Action.SHRINK,
    ),
    Kind.SWIMMER: (Action.MOVE_LEFT, Action.MOVE_RIGHT, Action.BOUNCE, Action.GROW, Action.SHRINK),
    Kind.BOAT: (Action.MOVE_LEFT, Action.MOVE_RIGHT, Action.SWAY, Action.GROW, Action.SHRINK),
    Kind.FLYER: (
        Action.MOVE_LEFT,
        Action.MOVE_RIGHT,
        Action.RISE,
        Action.FALL,
        Action.SWAY,
        Action.GROW,
        Action.SHRINK,
    ),
    Kind.VEHICLE: (Action.MOVE_LEFT, Action.MOVE_RIGHT, Action.BOUNCE, Action.GROW, Action.SHRINK),
    Kind.PLANT: (Action.SWAY, Action.GROW, Action.SHRINK),
    Kind.TOY: _TOY_ACTIONS,
    Kind.BALL: _TOY_ACTIONS,
}

# The first phrase is the canonical one; the rest are how people also say it.
_GOING: dict[Kind, tuple[str, ...]] = {
    Kind.ANIMAL: ("walks", "moves", "runs", "goes"),
    Kind.SWIMMER: ("swims", "moves", "goes"),
    Kind.BOAT: ("sails", "moves", "goes"),
    Kind.FLYER: ("flies", "moves", "goes"),
    Kind.VEHICLE: ("drives", "moves", "goes"),
    Kind.PLANT: ("moves", "slides", "goes"),
    Kind.TOY: ("slides", "moves", "goes"),
    Kind.BALL: ("rolls", "moves", "goes"),
}
_LEFT = ("to the left", "left", "leftward")
_RIGHT = ("to the right", "right", "rightward")
_OTHER: dict[Action, tuple[str, ...]] = {
    Action.BOUNCE: ("bounces up and down", "jumps up and down", "bounces"),
    Action.SPIN: ("spins in place", "rotates", "turns around", "spins"),
    Action.GROW: ("comes closer", "grows larger", "approaches", "gets bigger"),
    Action.SHRINK: ("moves away", "shrinks", "gets smaller", "recedes"),
    Action.RISE: ("rises upward", "goes up", "floats up", "rises"),
    Action.FALL: ("falls down", "drops", "sinks down", "falls"),
    Action.SWAY: ("sways from side to side", "swings", "rocks", "sways"),
}


def action_phrases(action: Action, kind: Kind) -> tuple[str, ...]:
    """All the ways to tell `action` of an object of `kind`, the canonical phrase first."""
    match action:
        case Action.MOVE_LEFT:
            return tuple(f"{verb} {where}" for where in _LEFT for verb in _GOING[kind])
        case Action.MOVE_RIGHT:
            return tuple(f"{verb} {where}" for where in _RIGHT for verb in _GOING[kind])
        case Action.HOP_LEFT:
            return tuple(f"{verb} {where}" for where in _LEFT for verb in ("hops", "jumps"))
        case Action.HOP_RIGHT:
            return tuple(f"{verb} {where}" for where in _RIGHT for verb in ("hops", "jumps"))
        case _:
            return _OTHER[action]


class Ground(StrEnum):
    MEADOW = "meadow"
    DESERT = "desert"
    SNOW = "snow"
    SEA = "sea"
    ROCK = "rock"
    AUTUMN = "autumn"


class Sky(StrEnum):
    CLEAR = "clear"
    SUNSET = "sunset"
    NIGHT = "night"
    OVERCAST = "overcast"
    DAWN = "dawn"


class Weather(StrEnum):
    NONE = "none"
    SNOW = "snow"
    RAIN = "rain"


class Camera(StrEnum):
    STATIC = "static"
    PAN_LEFT = "pan_left"
    PAN_RIGHT = "pan_right"
    ZOOM_IN = "zoom_in"
    ZOOM_OUT = "zoom_out"


GROUND_PHRASES: dict[Ground, tuple[str, ...]] = {
    Ground.MEADOW: ("on a grassy meadow", "on green grass", "in a meadow", "on a lawn"),
    Ground.DESERT: ("on a sandy desert", "in the desert", "on sand", "on sand dunes"),
    Ground.SNOW: ("on a snowy field", "in the snow", "on snow"),
    Ground.SEA: ("on a calm sea", "at sea", "on the ocean", "on blue water"),
    Ground.ROCK: ("on a grey rocky plain", "on grey rock", "on stony ground"),
    Ground.AUTUMN: ("on autumn leaves", "on fallen leaves", "on an autumn field"),
}

SKY_PHRASES: dict[Sky, tuple[str, ...]] = {
    Sky.CLEAR: ("under a clear blue sky", "under a blue sky", "on a sunny day"),
    Sky.SUNSET: ("under a sunset sky", "at sunset", "in the evening light"),
    Sky.NIGHT: ("under a starry night sky", "at night", "under the stars"),
    Sky.OVERCAST: ("under an overcast sky", "under grey clouds", "on a cloudy day"),
    Sky.DAWN: ("under a pink dawn sky", "at dawn", "in the early morning"),
}

WEATHER_PHRASES: dict[Weather, tuple[str, ...]] = {
    Weather.NONE: (),
    Weather.SNOW: ("light snow falls", "it snows", "snowing"),
    Weather.RAIN: ("rain falls", "it rains", "raining"),
}

CAMERA_PHRASES: dict[Camera, tuple[str, ...]] = {
    Camera.STATIC: ("static camera", "the camera stands still"),
    Camera.PAN_LEFT: ("the camera pans left", "camera moves left"),
    Camera.PAN_RIGHT: ("the camera pans right", "camera moves right"),
    Camera.ZOOM_IN: ("the camera zooms in", "camera slowly zooms in"),
    Camera.ZOOM_OUT: ("the camera zooms out", "camera slowly zooms out"),
}

HILLS_PHRASES: tuple[str, ...] = ("with distant hills", "with hills in the background")


def ground_phrases(ground: Ground, *, flying: bool) -> tuple[str, ...]:
    """All the ways to name `ground` under an object: what flies is over it, the rest on it or in it."""
    phrases = GROUND_PHRASES[ground]
    if not flying:
        return phrases
    return tuple("over " + p.split(" ", 1)[1] for p in phrases if not p.startswith("at "))


def grounds_of(kind: Kind) -> tuple[Ground, ...]:
    """Where an object of `kind` may naturally be: what floats on the sea, what flies anywhere, the rest on land."""
    if kind in {Kind.SWIMMER, Kind.BOAT}:
        return (Ground.SEA,)
    if kind is Kind.FLYER:
        return tuple(Ground)
    return tuple(g for g in Ground if g is not Ground.SEA)


def weathers_of(ground: Ground, sky: Sky) -> tuple[Weather, ...]:
    """What may fall from `sky` on `ground`: only clouds and night drop anything, and snow falls on no desert."""
    falling: list[Weather] = [Weather.NONE]
    if sky in {Sky.OVERCAST, Sky.NIGHT}:
        if ground is not Ground.DESERT:
            falling.append(Weather.SNOW)
        if ground is not Ground.SNOW:
            falling.append(Weather.RAIN)
    return tuple(falling)


def with_article(noun: str) -> str:
    """`noun` behind its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
