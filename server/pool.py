"""The name of a model's own queue and folder, so that no worker ever makes another model's jobs."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


def pool_of(model: str) -> str:
    """A name fit for Redis keys and folders; different for different models."""
    plain = _UNSAFE.sub("-", model).strip("-")[:40]
    if plain == model:
        return plain
    return f"{plain or 'model'}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
