"""One build: weights and a recipe in, a package out that was held to its budget, or nothing.

A package appears whole under its name, or not at all. What was compiled before, of the same content for the same
machine, is taken from the cache.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from engines.backends.compiled import FORMS, CompiledForm, find_form
from engines.building.accuracy import Accuracy, ProbeFilm, compared, cost_of, probe_films
from engines.building.compiling import Compiled, compile_parts
from engines.building.parts_cache import key_of
from engines.building.step_cache import reuse_for
from engines.building.workshop import Workshop
from engines.card import CARD_FILE, CARD_VERSION, ModelCard, read_card
from engines.catalog import find_model
from engines.engine import DTYPES, Engine, family_module, load_engine, load_family
from engines.errors import BuildRefused
from engines.host import Host, this_host
from engines.package import FORMAT, INTERFACE, Manifest, is_package, listed_files, recipe_hash, sign
from engines.package_loading import prepared_by
from engines.profile import narrowed_card
from engines.quantization.forms import BYTE_SUMS
from engines.recipes.probes import Probes
from engines.recipes.recipe import EngineRecipe
from engines.threads import apply_threads
from engines.whole_writes import folder_appearing_whole

# Of a model's folder, what a package has anew or does without.
_NOT_COPIED = {CARD_FILE, "README.md", "manifest.json"}


def build(recipe: EngineRecipe, workshop: Workshop, *, weights: str | None = None) -> Path:
    """Builds the package of `recipe` from `weights` (its own model where None), and tells where it is.

    BuildRefused when it cannot be built here or is beyond its budget, and then the package that may have been there
    stays as it was; MissingExtra when its backend is not installed.
    """
    form = find_form(recipe.backend) if recipe.backend in FORMS else None
    device = torch.device(recipe.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BuildRefused(
            f"{recipe.name} is built on a machine with an NVIDIA GPU, and torch sees none here", cannot_here=True
        )
    model = find_model(weights or recipe.model)
    if is_package(model):
        raise BuildRefused(f"{model} is an engine package itself; build from the weights that it was made of")
    if device.type == "cpu":
        apply_threads()
    card = read_card(model)
    recipe.profile.check(card)
    target = workshop.out / recipe.name
    with folder_appearing_whole(target) as folder:
        files = listed_files(model)
        parent = key_of({name: file.sha256 for name, file in files.items() if Path(name).name not in _NOT_COPIED})
        _copy_model(model, folder, card, recipe)
        host = _host(recipe, form, device)
        compiled = Compiled() if form is None else compile_parts(recipe, form, model, parent, host, folder, workshop)
        family_module(card).leave_out_compiled(folder, compiled.parts)
        engine = _engine(recipe, folder, compiled.parts)
        cached: dict[str, Any] = {}
        if recipe.step_cache is not None:
            workshop.report(f"{recipe.name}: errors of steps that are extrapolated")
            reuse, cached = reuse_for(engine, recipe.step_cache)
            engine = engine.reusing(reuse)
        accuracy, costs = _measured(recipe, model, parent, engine, workshop)
        faults = accuracy.faults(recipe.budget)
        if faults:
            raise BuildRefused(f"{recipe.name} is beyond its budget and was not written: {'; '.join(faults)}")
        content = json.loads(json.dumps(recipe.to_json()))
        manifest = Manifest(
            format=FORMAT,
            interface=INTERFACE,
            name=recipe.name,
            backend=recipe.backend,
            recipe=content,
            recipe_hash=recipe_hash(content),
            parent_name=card.name,
            parent=parent,
            host=host,
            parts=compiled.parts,
            quantization=compiled.quantization,
            step_cache=cached,
            costs=costs,
            accuracy=accuracy.to_json(),
            built_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            files=listed_files(folder),
        )
        sign(folder, manifest, workshop.key)
    return target


def _host(recipe: EngineRecipe, form: CompiledForm | None, device: torch.device) -> Host:
    """What of this machine the package will depend on."""
    if form is None:
        return replace(this_host(device, ("torch",), portable=True), byte_sums="any")
    host = this_host(device, form.libraries, portable=form.portable)
    multiplies_bytes = recipe.quantization is not None and recipe.quantization.form in BYTE_SUMS
    return host if multiplies_bytes else replace(host, byte_sums="any")


def _copy_model(model: Path, folder: Path, card: ModelCard, recipe: EngineRecipe) -> None:
    for item in sorted(model.iterdir()):
        if item.name in _NOT_COPIED or item.name.startswith("."):
            continue
        # A hub's cache holds links; a package holds files.
        (shutil.copytree if item.is_dir() else shutil.copyfile)(item, folder / item.name)
    narrowed = narrowed_card(card, recipe.profile, name=recipe.name, steps=recipe.steps)
    content = {"version": CARD_VERSION, **asdict(narrowed)}
    (folder / CARD_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _engine(recipe: EngineRecipe, folder: Path, parts: dict[str, str]) -> Engine:
    """The engine in `folder`, not yet signed."""
    card, dtype = read_card(folder), DTYPES[recipe.dtype]
    family = load_family(card, folder, device=torch.device(recipe.device), dtype=dtype, compiled=tuple(parts))
    prepare = prepared_by(recipe.backend, folder, parts, cuda_graphs=recipe.cuda_graphs)
    return Engine(card=card, family=family, backend=prepare(family))


def _measured(
    recipe: EngineRecipe, model: Path, parent: str, engine: Engine, workshop: Workshop
) -> tuple[Accuracy, list[dict[str, Any]]]:
    """An engine beside the uncompiled model in float32, both with as many steps."""
    probes = recipe.probes
    if probes.num_inference_steps is None:
        probes = replace(probes, num_inference_steps=recipe.steps)
    wanted = _reference(recipe, probes, model, parent, workshop)
    workshop.report(f"{recipe.name}: films of the engine")
    films = probe_films(engine, probes)
    return compared(films, wanted, workshop.scorers), [cost_of(films)]


def _reference(recipe: EngineRecipe, probes: Probes, model: Path, parent: str, workshop: Workshop) -> list[ProbeFilm]:
    """Films of the uncompiled model in float32, made once for all builds of a run that ask for the same."""
    key = key_of({"parent": parent, "device": recipe.device, "probes": asdict(probes)})
    if key not in workshop.references:
        workshop.report(f"{recipe.name}: films of the reference")
        engine = load_engine(model, device=recipe.device, dtype="float32")
        workshop.references[key] = probe_films(engine, probes)
    return workshop.references[key]
