"""The parts of a model, compiled into a package's folder or taken from the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from engines.backends.compiled import CompiledForm
from engines.building.parts_cache import key_of
from engines.building.rounding import Rounding
from engines.building.workshop import Workshop
from engines.card import read_card
from engines.engine import DTYPES, load_family
from engines.errors import BuildRefused
from engines.host import Host
from engines.package import COMPILED, INTERFACE
from engines.parts import ModelPart
from engines.recipes.recipe import EngineRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Files under `compiled/` by part, and what was found of the layers of those that are quantized."""

    parts: dict[str, str] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)


def compile_parts(
    recipe: EngineRecipe,
    form: CompiledForm,
    model: Path,
    parent: str,
    host: Host,
    folder: Path,
    workshop: Workshop,
) -> Compiled:
    """Compiles what is not in the cache; BuildRefused when the recipe wants what its backend cannot do."""
    if recipe.quantization is not None and recipe.quantization.form not in form.quantizes:
        raise BuildRefused(
            f"{recipe.name} asks for {recipe.quantization.form}, which {recipe.backend} cannot be given; it has "
            f"{', '.join(sorted(form.quantizes)) or 'no form of fewer bits'}"
        )
    card, profile = read_card(model), recipe.profile
    family = load_family(card, model, device=torch.device(recipe.device), dtype=DTYPES[recipe.dtype])
    usual = profile.usual(card)
    parts = family.parts_to_compile(usual, profile.corners(card), profile, operators=form.own_operators)
    rounding = Rounding(parts, card, family, recipe.quantization)
    shared = {
        "interface": INTERFACE,
        "parent": parent,
        "kind": form.kind,
        "dtype": recipe.dtype,
        "profile": profile.to_json(),
        "usual": asdict(usual),
        "quantization": None if recipe.quantization is None else asdict(recipe.quantization),
        "byte_sums": host.byte_sums,
        "host": {} if form.portable else {**asdict(host), "device_name": ""},
        "libraries": host.versions if recipe.quantization else {},
        "torch": torch.__version__,
        "code": code_digest(),
    }
    (folder / COMPILED).mkdir()
    files, reports = {}, {}
    for part in parts:
        file, key = f"{part.name}{form.suffix}", key_of({**shared, "part": part.name})
        made = workshop.cache.put_into(folder / COMPILED / file, key, form.suffix, _maker(form, rounding, part))
        workshop.report(f"{recipe.name}: {part.name} {'compiled' if made else 'taken from the cache'}")
        files[part.name] = file
        report = workshop.cache.remembered(key, _teller(rounding, part))
        if report:
            reports[part.name] = report
    return Compiled(parts=files, quantization=reports)


def _maker(form: CompiledForm, rounding: Rounding, part: ModelPart) -> Callable[[Path], None]:
    return lambda path: form.compile(rounding.of(part).part, path)


def _teller(rounding: Rounding, part: ModelPart) -> Callable[[], dict[str, Any]]:
    return lambda: rounding.of(part).report


def code_digest() -> str:
    """A hash of the sources that decide what a compiler is given: any change of them compiles anew."""
    import kernels  # noqa: PLC0415  the name alone would shadow the folder for who reads this

    here = Path(__file__).parent.parent
    folders = [Path(str(kernels.__path__[0])), *(here / name for name in ("operators", "backends", "quantization"))]
    sources = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return key_of({str(index): path.read_text(encoding="utf-8") for index, path in enumerate(sources)})
