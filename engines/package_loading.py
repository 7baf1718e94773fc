"""From an engine package to what runs it: verified first, and then loaded by the backend that it was built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engines.backends import Backend, find_backend
from engines.backends.compiled import FORMS, find_form
from engines.backends.cuda_graphs import Recorded
from engines.backends.fused import FusedBackend
from engines.errors import PackageRefused
from engines.family import Family
from engines.host import this_host
from engines.package import COMPILED, Manifest, verify
from engines.step_reuse import StepReuse

LIBRARIES = ("torch", "onnxruntime", "openvino", "torch-tensorrt", "tensorrt", "tensorrt-rtx")
"""The distributions that any package may depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPackage:
    """A package that was verified, and how its model is made ready."""

    manifest: Manifest
    device: str
    dtype: str
    max_rows: int | None
    reuse: StepReuse | None
    prepare: Callable[[Family], Backend]


def open_package(
    folder: Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    films: int | None = None,
) -> OpenPackage:
    """A verified package; PackageRefused where it may not be loaded, or is asked to be what it was not built as.

    `films` are to be made together, each of which takes two rows when it is guided.
    """
    here = device or ("cuda" if torch.cuda.is_available() else "cpu")
    manifest = verify(folder, host=this_host(torch.device(here), LIBRARIES))
    built = {name: str(manifest.recipe[name]) for name in ("backend", "device", "dtype")}
    for name, asked in (("backend", backend), ("device", device), ("dtype", dtype)):
        if asked is not None and asked.split(":")[0] != built[name]:
            raise PackageRefused(
                f"the engine package {folder.name} is built for {name} {built[name]}, and {asked} was asked for"
            )
    max_rows = _max_rows(manifest)
    if films is not None and max_rows is not None and 2 * films > max_rows:
        raise PackageRefused(
            f"the engine package {folder.name} is compiled for {max_rows} rows, {max_rows // 2} guided films together, "
            f"and batches of {films} were asked for; ask for fewer, or build it with a profile of {2 * films} rows"
        )
    return OpenPackage(
        manifest=manifest,
        device=device or built["device"],
        dtype=built["dtype"],
        max_rows=max_rows,
        reuse=reuse_of(manifest.step_cache),
        prepare=prepared_by(manifest.backend, folder, manifest.parts, cuda_graphs=bool(manifest.recipe["cuda_graphs"])),
    )


def reuse_of(step_cache: Mapping[str, Any]) -> StepReuse | None:
    """The steps that a manifest's report says are reused; None where nothing was measured."""
    if not step_cache:
        return None
    return StepReuse(num_steps=step_cache["num_steps"], steps=frozenset(step_cache["reused"]))


def _max_rows(manifest: Manifest) -> int | None:
    """The rows of one transformer call that compiled parts were made for; None where nothing is compiled."""
    return int(manifest.recipe["profile"]["max_rows"]) if manifest.parts else None


def prepared_by(
    backend: str, folder: Path, parts: Mapping[str, str], *, cuda_graphs: bool = False
) -> Callable[[Family], Backend]:
    """How a model is made ready for the compiled `parts` of a folder, files by name, or for a backend that has none."""
    if backend not in FORMS:
        return find_backend(backend)
    form = find_form(backend)

    def prepare(family: Family) -> Backend:
        files = {name: folder / COMPILED / file for name, file in parts.items()}
        loaded = {name: form.load(path, device=family.device) for name, path in files.items()}
        if cuda_graphs and family.device.type == "cuda":
            loaded = {name: Recorded(part) for name, part in loaded.items()}
        family.use_compiled(loaded)
        return FusedBackend(family)

    return prepare
