"""`rushes engines`: packages are built, listed, shown, verified and compared."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.command_group import command_group
from engines.errors import BuildRefused, MissingExtra
from engines.package import Manifest, is_package, read_manifest

if TYPE_CHECKING:
    from engines.building.workshop import Workshop

_OUT = Path("build/engines")
_CONSOLE = Console(stderr=True)
_Out = Annotated[Path, typer.Option(help="The folder that packages are in.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Package = Annotated[Path, typer.Argument(help="A package's folder.")]
_Trusted = Annotated[
    list[Path] | None,
    typer.Option("--trusted", help="A public key in PEM; may be repeated.", show_default="the machine's"),
]


@command_group
def engines() -> None:
    """Engine packages, what workers load: build them, list, show, verify and compare."""


@engines.command()
def build(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes by name; see `rushes engines list`.")] = None,
    all_recipes: Annotated[
        bool, typer.Option("--all", help="Every recipe of the built-in model that this machine can build.")
    ] = False,
    weights: Annotated[str | None, typer.Option(help="Other weights than the recipe's: a folder or a name.")] = None,
    out: _Out = _OUT,
    cache: Annotated[Path, typer.Option(help="Where compiled parts are kept.")] = Path("build/engine-cache"),
    key: Annotated[
        Path | None,
        typer.Option(help="The private key that signs, made if it is not there.", show_default="the user's"),
    ] = None,
    scorer: Annotated[
        list[str] | None, typer.Option(help="Who else judges the films, by entry point; may be repeated.")
    ] = None,
    json_output: _Json = False,
) -> None:
    """Build engine packages: compile, compare with the uncompiled model, sign. Exit code 1 when one is not built."""
    if bool(recipes) == all_recipes:
        raise ValueError("name the recipes to build, or give --all")
    from engines.catalog import BUILT_IN  # noqa: PLC0415
    from engines.recipes import RECIPES, find_recipe  # noqa: PLC0415

    found = [find_recipe(name) for name in (recipes or RECIPES)]
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: several threads then do not spin
    workshop = _workshop(out, cache, key, scorer or [])
    from engines.building.build import build as build_one  # noqa: PLC0415  it loads torch

    rows: list[dict[str, Any]] = []
    for recipe in found:
        if all_recipes and weights is None and recipe.model not in BUILT_IN:
            why = f"of published weights, {recipe.model}, which are fetched: build it by name"
            rows.append({"recipe": recipe.name, "built": False, "skipped": True, "why": why})
            continue
        try:
            with _CONSOLE.status(f"{recipe.name}: {recipe.description}"):
                folder = build_one(recipe, workshop, weights=weights)
            rows.append({"recipe": recipe.name, "built": True, "path": str(folder), **_facts(read_manifest(folder))})
        except (BuildRefused, MissingExtra) as error:
            # With --all what this machine lacks is told and passed by; a build that is not accurate is a failure.
            skipped = all_recipes and (isinstance(error, MissingExtra) or error.cannot_here)
            rows.append({"recipe": recipe.name, "built": False, "skipped": skipped, "why": str(error)})
    _tell_built(rows, json_output=json_output)
    if not all(row["built"] or row["skipped"] for row in rows):
        raise typer.Exit(1)


@engines.command("list")
def list_packages(out: _Out = _OUT, json_output: _Json = False) -> None:
    """The recipes, what can be built here, and the packages that were."""
    from engines.capabilities import backends_here  # noqa: PLC0415
    from engines.recipes import RECIPES, find_recipe  # noqa: PLC0415

    backends = {row.name: row for row in backends_here()}
    rows = []
    for name in RECIPES:
        recipe = find_recipe(name)
        package = out / name
        rows.append(
            {
                "recipe": name,
                "description": recipe.description,
                "backend": recipe.backend,
                "device": recipe.device,
                "backend_here": backends[recipe.backend].state,
                "built_at": read_manifest(package).built_at if is_package(package) else None,
            }
        )
    if json_output:
        sys.stdout.write(json.dumps({"recipes": rows, "backends": [asdict(b) for b in backends.values()]}) + "\n")
        return
    _print(
        ["recipe", "what", "on", "backend", "here", "built"],
        [
            [r["recipe"], r["description"], r["device"], r["backend"], r["backend_here"], r["built_at"] or ""]
            for r in rows
        ],
    )


@engines.command()
def show(package: _Package, json_output: _Json = False) -> None:
    """What a package says of itself; nothing of it is verified by this."""
    manifest = read_manifest(package)
    if json_output:
        sys.stdout.write(json.dumps(asdict(manifest)) + "\n")
        return
    facts = _facts(manifest)
    host = manifest.host
    rows = [
        ["name", manifest.name],
        ["from", f"{manifest.parent_name} ({manifest.parent[:12]})"],
        ["recipe", manifest.recipe_hash[:12]],
        ["backend", f"{manifest.backend}, {', '.join(f'{k} {v}' for k, v in host.versions.items())}"],
        ["machine", "any" if host.portable else f"{host.system} {host.machine} {host.device} {host.capability}"],
        ["parts", ", ".join(manifest.parts) or "none compiled"],
        *[[f"layers of {part}", _rounded(manifest, report)] for part, report in manifest.quantization.items()],
        *([["steps", _reused(manifest.step_cache)]] if manifest.step_cache else []),
        ["built", manifest.built_at],
        ["files", f"{len(manifest.files)}, {facts['megabytes']} MB"],
        ["worst latent error", f"{facts['latent_error']:.2g}"],
        ["PSNR, SSIM", f"{facts['psnr']:.1f} dB, {facts['ssim']:.5f}"],
        *[[f"seconds, {c['shape']}", f"step {c['step']:.3f}, decode {c['decode']:.3f}"] for c in manifest.costs],
    ]
    _print(["", ""], rows)


def _rounded(manifest: Manifest, report: dict[str, Any]) -> str:
    return f"{report['rounded']} in {manifest.recipe['quantization']['form']}, {len(report['kept'])} as they were"


def _reused(report: dict[str, Any]) -> str:
    steps = ", ".join(str(step + 1) for step in report["reused"])
    return f"of {report['num_steps']} not computed: {steps or 'none'}"


@engines.command()
def verify(package: _Package, trusted: _Trusted = None, json_output: _Json = False) -> None:
    """Whether a package may be loaded here: signature, machine, versions, every file. Exit code 2 when not."""
    import torch  # noqa: PLC0415

    from engines.host import this_host  # noqa: PLC0415
    from engines.package import verify as verified  # noqa: PLC0415
    from engines.package_loading import LIBRARIES  # noqa: PLC0415
    from engines.signing import trusted_keys  # noqa: PLC0415

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keys = trusted_keys(trusted) if trusted else None
    manifest = verified(package, host=this_host(device, LIBRARIES), trusted=keys)
    if json_output:
        sys.stdout.write(json.dumps({"ok": True, "name": manifest.name, "files": len(manifest.files)}) + "\n")
    else:
        sys.stdout.write(f"{manifest.name}: signed, fits this machine, {len(manifest.files)} files as signed\n")


@engines.command()
def compare(
    a: Annotated[str, typer.Argument(help="A package's folder, or a model.")],
    b: Annotated[str, typer.Argument(help="What it is held against.")],
    json_output: _Json = False,
) -> None:
    """Make the same films by two engines, in turns: how far apart they are, and what each takes."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from engines.building.side_by_side import compare_engines  # noqa: PLC0415

    found = compare_engines(a, b, _CONSOLE.print)
    if json_output:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    rows = [
        [stage, f"{x['a']:.3f}", f"{x['b']:.3f}", f"{x['ratio']:.2f} [{x['ratio_low']:.2f}, {x['ratio_high']:.2f}]"]
        for stage, x in found["seconds"].items()
    ]
    _print(["seconds", "A", "B", "B takes, times A [quartiles]"], rows)
    sys.stdout.write(
        f"{found['films']} films a side, in turns; load {found['load'][0]:.1f} before, {found['load'][1]:.1f} after\n"
        f"worst latent error {max(found['accuracy']['latent_errors']):.2g}, PSNR {found['accuracy']['psnr']:.1f} dB, "
        f"SSIM {found['accuracy']['ssim']:.5f} over {found['accuracy']['films']} films\n"
    )


def _workshop(out: Path, cache: Path, key: Path | None, scorers: list[str]) -> Workshop:
    from engines.building.parts_cache import PartsCache  # noqa: PLC0415
    from engines.building.scorers import find_scorer  # noqa: PLC0415
    from engines.building.workshop import Workshop  # noqa: PLC0415
    from engines.signing import default_key_path, signing_key  # noqa: PLC0415

    return Workshop(
        out=out,
        cache=PartsCache(cache),
        key=signing_key(key or default_key_path()),
        scorers=[find_scorer(name) for name in scorers],
        report=lambda line: _CONSOLE.print(line, highlight=False, markup=False),
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    accuracy = manifest.accuracy
    return {
        "backend": manifest.backend,
        "latent_error": max(accuracy["latent_errors"]),
        "psnr": accuracy["psnr"],
        "ssim": accuracy["ssim"],
        "step_seconds": manifest.costs[0]["step"],
        "decode_seconds": manifest.costs[0]["decode"],
        "megabytes": round(sum(file.size for file in manifest.files.values()) / 1e6),
    }


def _tell_built(rows: list[dict[str, Any]], *, json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps({"builds": rows}) + "\n")
        return
    table = []
    for row in rows:
        if row["built"]:
            figures = [f"{row['latent_error']:.1e}", f"{row['psnr']:.1f}", f"{row['ssim']:.4f}"]
            figures += [f"{row['step_seconds']:.3f}", f"{row['decode_seconds']:.3f}", str(row["megabytes"])]
            table.append([row["recipe"], "built", *figures])
        elif not row["skipped"]:
            table.append([row["recipe"], "refused", *[""] * 6])
    if table:
        _print(["recipe", "", "latent error", "PSNR dB", "SSIM", "s a step", "s decode", "MB"], table)
    skipped: dict[str, list[str]] = {}
    for row in rows:
        if not row["built"] and not row["skipped"]:
            sys.stdout.write(f"{row['recipe']}: {row['why']}\n")
        elif not row["built"]:
            skipped.setdefault(row["why"].removeprefix(f"{row['recipe']} is "), []).append(row["recipe"])
    for why, names in skipped.items():
        sys.stdout.write(f"skipped, {why}: {', '.join(names)}\n")


def _print(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(highlight=False).print(table)
