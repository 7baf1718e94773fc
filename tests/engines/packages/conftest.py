"""Packages of the tiny Wan, built once a session, each by a key of the tests' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.building.build import build
from engines.building.parts_cache import PartsCache
from engines.building.workshop import Workshop
from engines.profile import ShapeProfile
from engines.recipes.diorama import EXACT
from engines.recipes.probes import Probes
from engines.recipes.recipe import EngineRecipe
from engines.signing import public_path, signing_key

RECIPE = EngineRecipe(
    name="tiny-onnxruntime",
    description="for tests",
    model="tiny",
    device="cpu",
    backend="onnxruntime",
    dtype="float32",
    profile=ShapeProfile(
        min_width=16, max_width=96, min_height=16, max_height=96, min_frames=1, max_frames=33, max_rows=16
    ),
    probes=Probes(prompts=("a cat walks on grass",), seeds=(1,)),
    budget=EXACT,
)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; its public half lies beside it."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    signing_key(path)
    return path


@pytest.fixture(autouse=True)
def _trusting(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setenv("RUSHES_ENGINE_TRUSTED", str(public_path(key_file)))


@pytest.fixture(scope="session")
def parts_cache(tmp_path_factory: pytest.TempPathFactory) -> PartsCache:
    return PartsCache(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def build_tiny(tiny_wan: Path, key_file: Path, parts_cache: PartsCache) -> Callable[..., Path]:
    """Builds a package of the tiny Wan into a folder, with changes to the recipe; what it reports goes to `told`."""

    def make(out: Path, *, told: list[str] | None = None, weights: Path | None = None, **changes: object) -> Path:
        report = told if told is not None else []
        workshop = Workshop(out=out, cache=parts_cache, key=signing_key(key_file), scorers=(), report=report.append)
        return build(replace(RECIPE, **changes), workshop, weights=str(weights or tiny_wan))

    return make


@pytest.fixture(scope="session")
def package(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good package, shared by the session: to be copied before it is changed."""
    return build_tiny(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def plain_package(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without compiled parts, which is built in a second."""
    return build_tiny(tmp_path_factory.mktemp("packages"), name="tiny-fused", backend="fused")
