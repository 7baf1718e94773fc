"""The project's own Python sources, parsed once, for the contract tests."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("kernels", "engines", "enhancer", "post_train", "server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file: its path from the root, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def floor(self) -> str:
        return self.path.parts[0]


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file below `folders`."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(Source(path=path.relative_to(ROOT), text=text, tree=ast.parse(text)))
    assert found, f"no sources below {folders}"
    return tuple(found)


def imported_names(tree: ast.AST) -> list[tuple[str, str]]:
    """(module, name) of every import in `tree`, at whatever depth; `import a.b` gives ("a.b", "")."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found
