"""Random numbers that hang on a name alone, so that what is done again is done exactly as before."""

from __future__ import annotations

import hashlib

import torch


def generator_of(name: str) -> torch.Generator:
    """The random numbers called `name`: the same on every machine and however often they are asked for."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
