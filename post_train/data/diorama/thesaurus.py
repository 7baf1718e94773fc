"""Words that people type about the Diorama world beyond those its captions use: only prompt parsing reads them."""

from __future__ import annotations

from post_train.data.diorama.vocabulary import Camera, Ground, Sky, Weather

# How people also travel, told as captions tell it: in the third person.
GOING = (
    *("travels", "heads", "strolls", "wanders", "trots", "marches", "crawls", "glides", "speeds", "races", "rushes"),
    *("cruises", "dashes", "hurries", "rides", "floats", "drifts", "soars", "waddles", "scurries", "passes", "zooms"),
    *("gallops", "jogs", "sprints", "steps", "paddles", "proceeds", "chugs"),
)
HOPPING = ("leaps", "skips")
SPINNING = ("twirls", "whirls", "revolves")
GROWING = ("grows", "enlarges", "nears")
SHRINKING = ("retreats", "diminishes")
RISING = ("ascends", "climbs", "takes off", "lifts off", "blasts off")
FALLING = ("descends", "plunges", "sinks", "tumbles", "plummets")
SWAYING = ("wobbles", "wiggles")
GETTING = ("gets", "becomes")
STANDING = ("stands", "stays", "remains", "sits", "rests", "waits")

# Forms that no rule makes: what is typed, and the third person that it stands for.
_IRREGULAR = """
    went:goes gone:goes ran:runs flew:flies flown:flies swam:swims drove:drives driven:drives slid:slides came:comes
    got:gets gotten:gets grew:grows grown:grows shrank:shrinks shrunk:shrinks rose:rises risen:rises fell:falls
    fallen:falls sank:sinks sunk:sinks swung:swings spun:spins became:becomes rode:rides sped:speeds leapt:leaps
    stood:stands sat:sits took:takes
"""
IRREGULAR = {typed: third for typed, _, third in (pair.partition(":") for pair in _IRREGULAR.split())}
IRREGULAR_PLURALS = {"calf": "calves", "cactus": "cacti", "snowman": "snowmen"}

# Grounds by any of these names, whatever stands before them; those of PREPOSED only behind a preposition, because
# "rocks" is also a verb, "leaves" too, and snow on its own may be the weather.
GROUNDS: dict[str, Ground] = {
    **dict.fromkeys(("grass", "meadow", "lawn", "grassland", "pasture", "grassy", "field"), Ground.MEADOW),
    **dict.fromkeys(("grassy field", "green field", "grassy plain", "grassy ground", "prairie"), Ground.MEADOW),
    **dict.fromkeys(("desert", "sand", "dunes", "dune", "sandy", "sandy ground", "sandy plain"), Ground.DESERT),
    **dict.fromkeys(("snowy field", "snowy ground", "snowy plain", "snowy meadow", "snowy landscape"), Ground.SNOW),
    **dict.fromkeys(("snow field", "snow-covered field", "snow-covered ground", "snowy"), Ground.SNOW),
    **dict.fromkeys(("sea", "ocean", "water", "waves", "sea water", "open sea", "open water"), Ground.SEA),
    **dict.fromkeys(("rocky plain", "rocky ground", "rocky", "stony", "stony ground", "stony plain"), Ground.ROCK),
    **dict.fromkeys(("rocky field", "stony field", "bare rock", "rocky landscape", "stones"), Ground.ROCK),
    **dict.fromkeys(("autumn", "autumn field", "autumn ground", "autumn meadow", "autumn leaves"), Ground.AUTUMN),
    **dict.fromkeys(("fallen leaves", "fall leaves", "dry leaves", "autumn foliage"), Ground.AUTUMN),
}
PREPOSED: dict[str, Ground] = {
    **dict.fromkeys(("snow", "white snow", "deep snow", "fresh snow", "soft snow"), Ground.SNOW),
    **dict.fromkeys(("rock", "rocks", "stone", "grey rocks"), Ground.ROCK),
    **dict.fromkeys(("leaves", "fall"), Ground.AUTUMN),
}
# A colour before a ground says nothing new where the ground has it by nature.
NATURAL_COLOURS: dict[Ground | Sky, tuple[str, ...]] = {
    Ground.MEADOW: ("green",),
    Ground.DESERT: ("yellow", "orange"),
    Ground.SNOW: ("white",),
    Ground.SEA: ("blue",),
    Ground.ROCK: ("grey",),
    Ground.AUTUMN: ("orange", "red", "yellow"),
    Sky.CLEAR: ("blue",),
    Sky.SUNSET: ("orange", "red", "pink"),
    Sky.NIGHT: (),
    Sky.OVERCAST: ("grey", "white"),
    Sky.DAWN: ("pink",),
}
SKIES: dict[str, Sky] = {
    **dict.fromkeys(
        ("clear sky", "clear blue sky", "blue sky", "sunny sky", "cloudless sky", "bright blue sky"), Sky.CLEAR
    ),
    **dict.fromkeys(("sunny", "sunny day", "sunny weather", "clear day", "sunshine", "bright day"), Sky.CLEAR),
    **dict.fromkeys(("sunset", "sunset sky", "sunset light", "evening", "evening light", "evening sky"), Sky.SUNSET),
    **dict.fromkeys(("dusk", "sundown", "setting sun", "golden hour"), Sky.SUNSET),
    **dict.fromkeys(("night", "night sky", "starry night", "starry sky", "starry night sky", "stars"), Sky.NIGHT),
    **dict.fromkeys(("starry", "midnight", "nighttime", "dark night"), Sky.NIGHT),
    **dict.fromkeys(("overcast", "overcast sky", "grey sky", "grey clouds", "cloudy", "cloudy sky"), Sky.OVERCAST),
    **dict.fromkeys(("cloudy day", "overcast day", "clouds", "grey day", "cloudy weather"), Sky.OVERCAST),
    **dict.fromkeys(("dawn", "dawn sky", "pink dawn sky", "pink dawn", "sunrise", "daybreak"), Sky.DAWN),
    **dict.fromkeys(("early morning", "morning", "morning light", "morning sky", "rising sun"), Sky.DAWN),
}
HILLS = ("hills", "distant hills", "hills in the background", "hills in the distance", "hills behind", "hills far away")
# The gerunds and the bare nouns follow from the vocabulary's sentences only in part.
WEATHERS: dict[str, Weather] = {
    **dict.fromkeys(("snow is falling", "snow falling", "snow falls", "falling snow", "snowfall"), Weather.SNOW),
    **dict.fromkeys(("it is snowing", "is snowing", "snows", "snowflakes", "snowflakes fall"), Weather.SNOW),
    **dict.fromkeys(("snowflakes falling", "snowflakes are falling", "falling snowflakes", "snowy day"), Weather.SNOW),
    **dict.fromkeys(("snowy weather", "snow comes down", "snow coming down"), Weather.SNOW),
    **dict.fromkeys(("rain", "rains", "rain is falling", "rain falling", "falling rain", "rainfall"), Weather.RAIN),
    **dict.fromkeys(("it is raining", "is raining", "rainy", "rainy day", "rainy weather"), Weather.RAIN),
    **dict.fromkeys(("rain comes down", "rain coming down", "raindrops", "drizzle"), Weather.RAIN),
}
# Said of the camera, or without naming it; "slowly" and its like may stand inside.
ZOOMS = {
    Camera.ZOOM_IN: ("zooms in", "pushes in", "dollies in"),
    Camera.ZOOM_OUT: ("zooms out", "pulls back", "pulls out"),
}
STILL_CAMERA = (
    "camera does not move",
    "camera doesn't move",
    "no camera movement",
    "no camera motion",
    "camera not moving",
)
STILL = ("static", "still", "fixed", "stationary", "motionless", "locked")

# What no judge of this world measures, so that a prompt with them is judged by the rest of its words.
_MODIFIERS = """
    small big large little tiny huge giant great medium-sized cute adorable beautiful nice lovely pretty happy sad funny
    cheerful friendly playful curious calm peaceful quiet gentle slow quick fast slowly quickly gently smoothly steadily
    calmly happily quietly softly lightly gracefully swiftly rapidly lazily leisurely bright brightly dark light pale
    deep vivid shiny glossy colourful colorful cartoon cartoonish realistic lonely lone old young new fluffy round soft
    warm cold fresh high low wide vast open endless long short simple again continuously repeatedly alone clockwise
    counterclockwise anticlockwise cinematic detailed high-quality hd 4k animated heavy light very really quite slightly
    bit
"""
MODIFIERS = frozenset(_MODIFIERS.split())
_STOP_WORDS = """
    is are was were be being been am there here that which who as while where when then so it's its also both of for
    video film clip movie footage scene shot picture image animation view background foreground frame screen
    shows showing show shown depicts depicting featuring features see seen sees watch watching make please
    sky horizon ground land landscape scenery place day daytime weather plain world starts start starting begins
    begin beginning keeps keep keeping continues continuing has have having their his her some i
    want size wind breeze air
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_PREPOSITIONS = """
    to from at in on onto over under above across through along into inside during amid upon around behind below
    beneath past towards between among
"""
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
DETERMINERS = frozenset({"a", "an", "the", "one", "single", "this", "that"})
# With these an object only has to be there; with the other prepositions it would have to be somewhere.
BESIDE = frozenset({"with", "by", "beside", "near", "alongside", "next to", "together with", "close to"})
NEGATIONS = frozenset(
    {"no", "not", "without", "never", "isn't", "doesn't", "don't", "aren't", "nor", "neither", "cannot"}
)
SPELLINGS = {"gray": "grey", "toward": "towards", "it's": "it is", "there's": "there is", "leftwards": "leftward"}
