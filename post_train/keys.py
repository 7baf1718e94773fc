"""Names for what is kept on disk: a hash of everything that decides it. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def key_of(facts: Mapping[str, Any]) -> str:
    """The hash of named facts, which JSON can hold; their order does not matter."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
