"""What all builds of a run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engines.building.accuracy import ProbeFilm
from engines.building.parts_cache import PartsCache
from engines.types import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where packages go and compiled parts are kept, who signs, and who else judges; `report` is told what is done.

    `references` keeps the reference's films from build to build.
    """

    out: Path
    cache: PartsCache
    key: Ed25519PrivateKey
    scorers: Sequence[Scorer]
    report: Callable[[str], None]
    references: dict[str, list[ProbeFilm]] = field(default_factory=dict)
