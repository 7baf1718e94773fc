"""Which compositions no training clip may show, so that evaluation can ask for what was never seen together.

A triple (object, action, ground) is held out by a hash of its words alone: the choice is the same on every machine,
for every seed and every version of the world, and costs a microsecond. Every object still trains with all of its
actions, and on all of its grounds.
"""

from __future__ import annotations

import hashlib
from functools import cache

from post_train.data.diorama.vocabulary import ACTIONS_OF, OBJECTS, Action, Ground, grounds_of

Triple = tuple[str, Action, Ground]

_SALT = "rushes held-out triples 1"
_SHARE = 0.045


@cache
def held_out_triple(name: str, action: Action, ground: Ground) -> bool:
    """Whether no training clip may show `name` doing `action` on `ground`.

    What has one ground only (fish, whale, sailboat) is never held out, since its action would then never be seen.
    Raises KeyError for an object that is not of this world.
    """
    if len(grounds_of(OBJECTS[name].kind)) == 1:
        return False
    digest = hashlib.blake2b(f"{_SALT}|{name}|{action}|{ground}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < _SHARE * 2**64


@cache
def natural_triples() -> tuple[Triple, ...]:
    """Every (object, action, ground) that the world shows, in the vocabulary's order."""
    return tuple(
        (name, action, ground)
        for name, thing in OBJECTS.items()
        for action in ACTIONS_OF[thing.kind]
        for ground in grounds_of(thing.kind)
    )
