"""Held-out compositions are few, fixed for ever, and leave every object all of its actions and grounds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from post_train.data.diorama.holdout import held_out_triple, natural_triples
from post_train.data.diorama.vocabulary import ACTIONS_OF, OBJECTS, Action, Ground, grounds_of


def test_a_few_percent_are_held_out() -> None:
    """Between 3 and 6 % of what the world shows, of most objects and of every ground."""
    triples = natural_triples()
    held = [t for t in triples if held_out_triple(*t)]
    assert 0.03 < len(held) / len(triples) < 0.06
    assert len({name for name, _, _ in held}) > len(OBJECTS) // 2
    assert {ground for _, _, ground in held} == set(Ground)


def test_the_choice_never_changes() -> None:
    """Weights trained without these triples stay held out: the very set is part of the promise."""
    held = sorted(f"{n}|{a}|{g}" for n, a, g in natural_triples() if held_out_triple(n, a, g))
    assert len(held) == 68
    assert held[0] == "airplane|move_left|rock"
    assert held[-1] == "tree|sway|rock"


def test_every_action_and_ground_is_still_trained() -> None:
    """No object loses an action or a ground altogether, so only the combination is new."""
    for name, thing in OBJECTS.items():
        for action in ACTIONS_OF[thing.kind]:
            assert not all(held_out_triple(name, action, g) for g in grounds_of(thing.kind)), (name, action)
        for ground in grounds_of(thing.kind):
            assert not all(held_out_triple(name, a, ground) for a in ACTIONS_OF[thing.kind]), (name, ground)


def test_an_unknown_object_is_refused() -> None:
    """A word that is not of this world is a mistake, not a no."""
    with pytest.raises(KeyError):
        held_out_triple("unicorn", Action.GROW, Ground.SEA)


def test_it_needs_no_torch() -> None:
    """Data workers import it without torch."""
    code = "import sys, post_train.data.diorama.holdout; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
