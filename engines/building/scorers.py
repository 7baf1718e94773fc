"""Judges of films that other floors bring, by entry point: engines know the protocol alone."""

from __future__ import annotations

from importlib.metadata import entry_points

from engines.errors import MissingExtra, UnknownName
from engines.types import Scorer

GROUP = "rushes.scorers"


def find_scorer(name: str) -> Scorer:
    """The scorer of that name; `UnknownName` for another, `MissingExtra` when what it imports is not installed."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise UnknownName("scorer", name, found)
    try:
        return found[name].load()()
    except ImportError as error:
        raise MissingExtra(
            f"the scorer {name!r} needs {error.name or error}; install it with: pip install 'rushes[train]'"
        ) from error
