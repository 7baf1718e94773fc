"""Hashes of what decides a result: a model's folder, and the code that makes or judges a film."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

# What decides no pixel.
_IRRELEVANT = frozenset({"README.md", "manifest.json"})
# The engine's sources that decide pixels, below engines/.
_MAKING = (
    "engine.py",
    "denoising.py",
    "components.py",
    "family.py",
    "prompt_cache.py",
    "row_exact.py",
    "families",
    "samplers",
    "backends",
)
_JUDGING = ("rewards", "data/diorama")


def folder_digest(folder: Path) -> str:
    """A hash of every file below `folder` that may decide a pixel: weights, configs, tokenizer, card."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and path.name not in _IRRELEVANT and not any(p.startswith(".") for p in relative.parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{relative.as_posix()} {content}\n".encode())
    return digest.hexdigest()


@cache
def engine_digest() -> str:
    """A hash of the code that makes pixels: the engine's own without comments, and its libraries' versions."""
    libraries = "".join(f"{name} {version(name)}\n" for name in ("torch", "diffusers", "transformers"))
    return hashlib.sha256((libraries + _code("engines", _MAKING)).encode()).hexdigest()


@cache
def judging_digest() -> str:
    """A hash of the code that scores films, without its comments."""
    return _code("post_train", _JUDGING)


def _code(package: str, names: Iterable[str]) -> str:
    root = Path(str(resources.files(package)))
    digest = hashlib.sha256()
    for name in names:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            tree = ast.dump(_without_docstrings(ast.parse(path.read_text(encoding="utf-8"))))
            digest.update(f"{path.relative_to(root).as_posix()} {hashlib.sha256(tree.encode()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
    return tree
