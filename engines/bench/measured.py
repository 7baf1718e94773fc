"""Which engine a bench measures: one that is named, or the best that was built of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.backends import BACKENDS, known_backends
from engines.card import read_card
from engines.errors import PackageRefused, UnknownName
from engines.package import Manifest, is_package, read_manifest

BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A model's folder with a backend, or a package, which has its own."""

    name: str
    folder: Path
    backend: str | None
    runs_by: str


def find_measured(model: Path, engine: str, packages: Path) -> Measured:
    """The engine of that name for `model`: a backend, a package's folder, or the best.

    The best is the package of the model under `packages` whose build measured the least seconds a step on a CPU, of
    those that compute every step, or our operators uncompiled where none was built. `UnknownName` for another word.
    """
    if engine == BEST:
        built = sorted(_built(model, packages), key=lambda found: found[1].costs[0]["step"])
        if not built:
            return Measured(name="fused", folder=model, backend="fused", runs_by="fused")
        folder, manifest = built[0]
        return Measured(name=manifest.name, folder=folder, backend=None, runs_by=manifest.backend)
    if engine in BACKENDS:
        return Measured(name=engine, folder=model, backend=engine, runs_by=engine)
    folder = Path(engine).expanduser()
    if is_package(folder):
        manifest = read_manifest(folder)
        return Measured(name=manifest.name, folder=folder, backend=None, runs_by=manifest.backend)
    raise UnknownName("engine", engine, [BEST, *known_backends()], hint="; or name a package's folder")


def _built(model: Path, packages: Path) -> Iterator[tuple[Path, Manifest]]:
    name = read_card(model).name
    for folder in sorted(packages.glob("*")):
        if is_package(folder):
            try:
                manifest = read_manifest(folder)
            except PackageRefused:
                continue  # of an older program: it would not be loaded either
            if manifest.parent_name == name and manifest.host.device == "cpu" and not manifest.step_cache:
                yield folder, manifest
