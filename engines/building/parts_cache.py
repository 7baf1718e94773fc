"""Compiled parts by what decides them, so that a build compiles only what has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.whole_writes import appearing_whole, write_whole

KEPT = 128  # files; the one not used for longest makes room


def key_of(facts: Mapping[str, Any]) -> str:
    """What a part is kept under: a hash of everything that decides its bytes."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PartsCache:
    """Files under `root`. Several builds may share one: a part appears whole, and twice the same is no harm."""

    root: Path

    def put_into(self, target: Path, key: str, suffix: str, make: Callable[[Path], None]) -> bool:
        """Copies the part of `key` to `target`, made by `make` if it is not there; tells whether it was made."""
        self.root.mkdir(parents=True, exist_ok=True)
        kept = self.root / f"{key}{suffix}"
        made = not kept.is_file()
        if made:
            with appearing_whole(kept) as part:
                # Compilers look at the ending of what they write.
                written = part.with_name(part.name + suffix)
                try:
                    make(written)
                    written.replace(part)
                finally:
                    written.unlink(missing_ok=True)
        kept.touch()
        shutil.copyfile(kept, target)
        self._make_room()
        return made

    def remembered(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is told of the part of `key`, by `make` if nothing was yet."""
        path = self.root / f"{key}.json"
        if not path.is_file():
            write_whole(path, json.dumps(make()).encode())
        path.touch()
        return json.loads(path.read_text(encoding="utf-8"))

    def _make_room(self) -> None:
        files = sorted((p for p in self.root.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
        for path in files[:-KEPT]:
            path.unlink(missing_ok=True)
