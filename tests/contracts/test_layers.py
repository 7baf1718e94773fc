"""Imports point downward only, and nobody reaches into another folder's private parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.contracts.sources import FLOORS, ROOT, Source, imported_names, sources

ALLOWED = {
    "kernels": set(),
    "engines": {"kernels"},
    "enhancer": {"engines"},
    "post_train": {"engines", "enhancer", "kernels"},
    "server": {"engines", "enhancer"},
}


def _present() -> tuple[Source, ...]:
    return sources(*(floor for floor in FLOORS if (ROOT / floor).is_dir()))


def test_every_floor_imports_only_what_lies_below() -> None:
    """The table of architecture.md, for every import at any depth of a function."""
    for source in _present():
        for module, _ in imported_names(source.tree):
            floor = module.split(".")[0]
            if floor in FLOORS and floor != source.floor:
                assert floor in ALLOWED[source.floor], f"{source.path} imports {module}"


def test_no_folder_imports_a_private_name_of_another() -> None:
    """What begins with an underscore stays in its folder."""
    for source in _present():
        for module, name in imported_names(source.tree):
            if module.split(".")[0] in FLOORS and module.split(".")[0] != source.floor:
                assert not any(part.startswith("_") for part in (*module.split("."), name)), f"{source.path}: {module}"


def test_families_do_not_import_one_another() -> None:
    """One file a family."""
    for source in sources("engines/families"):
        for module, _ in imported_names(source.tree):
            assert not module.startswith("engines.families.") or module == f"engines.families.{source.path.stem}"


@pytest.mark.parametrize(
    "module", ["server.api.app", "server.queue.client", "server.artifacts.filesystem", "server.cli"]
)
def test_the_gateway_imports_no_torch(module: str) -> None:
    """Nothing that the gateway process imports pulls torch, diffusers or transformers in."""
    code = f"import sys, {module}; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
