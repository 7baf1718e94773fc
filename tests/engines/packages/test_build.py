"""A build makes the films of the model it is built from, whole or not at all, and compiles only what has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from engines import load_engine
from engines.backends.compiled import find_form
from engines.building.accuracy import psnr, ssim
from engines.card import read_card
from engines.errors import BuildRefused, InvalidRequest, PackageRefused
from engines.families.wan import Wan
from engines.families.wan_configs import PUBLISHED
from engines.model_folder import tensor_shapes
from engines.operators.wan_prompt import is_of_prompts
from engines.package import read_manifest
from engines.recipes import RECIPES, find_recipe
from engines.recipes.diorama import EXACT
from tests.engines.making import films, request
from tests.engines.packages.conftest import RECIPE

Build = Callable[..., Path]


def test_a_package_makes_the_models_film(package: Path, tiny_wan: Path) -> None:
    """By its folder alone, of any shape of its profile, short ones that the decoder's part cannot make too."""
    engine, model = load_engine(package), load_engine(tiny_wan)
    for geometry in (
        {},
        {"width": 80, "num_frames": 13},
        {"num_frames": 5},
        {"num_frames": 1},
        {"guidance_scale": 1.0},
    ):
        wanted = request("it", **geometry)
        (own,), (other,) = films(engine, wanted), films(model, wanted)
        assert np.abs(own.latents - other.latents).max() < 1e-4
        assert np.abs(own.frames.astype(int) - other.frames).max() <= 1


def test_the_compiled_parts_are_what_runs(package: Path) -> None:
    """Neither the model's transformer nor its decoder is called."""
    engine = load_engine(package)
    parts = cast(Wan, engine._family).parts
    for module in (parts.transformer.blocks[0], parts.vae.decoder):
        module.register_forward_pre_hook(lambda *_: pytest.fail("the model itself was run"))
    (film,) = films(engine, request("it"))
    assert film.frames.std() > 0


def test_weights_are_there_once(package: Path, plain_package: Path, tiny_wan: Path) -> None:
    """A compiled step has its own; beside it a package holds, and loads, what makes keys of prompts, and no more."""
    held = tensor_shapes(package / "transformer")
    whole = tensor_shapes(tiny_wan / "transformer")
    assert set(held) == {name for name in whole if is_of_prompts(name)}
    assert len(held) == 4 + 5 * 2  # two layers of the text's; keys, values and a norm in each of two blocks
    loaded = load_engine(package).family
    assert isinstance(loaded, Wan)
    assert {n: tuple(p.shape) for n, p in loaded.parts.transformer.named_parameters()} == held
    loaded.keep_only("decode")
    loaded.keep_only(None)
    assert tensor_shapes(plain_package / "transformer") == whole


def test_a_manifest_tells_what_was_measured(package: Path) -> None:
    """Accuracy with one error a step, a cost, the parent's hash, every file."""
    manifest = read_manifest(package)
    assert manifest.name == "tiny-onnxruntime"
    assert manifest.accuracy["films"] == 1
    assert len(manifest.accuracy["latent_errors"]) == 4
    assert 0 < max(manifest.accuracy["latent_errors"]) <= EXACT.latent_error
    assert manifest.costs[0]["shape"] == "32x32x9"
    assert manifest.costs[0]["step"] > 0
    assert set(manifest.parts) == {"step", "decoder"}
    on_disk = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    assert on_disk == set(manifest.files) | {"engine.json", "engine.sig"}


def test_a_package_serves_under_its_own_name_and_limits(build_tiny: Build, tmp_path: Path) -> None:
    """Its card has the recipe's name, and refuses what it was not compiled for, in the words of any model."""
    profile = replace(RECIPE.profile, max_width=48, max_frames=17)
    package = build_tiny(tmp_path, profile=profile, backend="fused")
    card = read_card(package)
    assert (card.name, card.limits.max_width, card.limits.max_frames) == ("tiny-onnxruntime", 48, 17)
    with pytest.raises(ValueError, match="width is 64; it must be from 16 to 48"):
        films(load_engine(package), request("it", width=64))


def test_more_films_together_than_it_was_compiled_for_are_refused(package: Path, plain_package: Path) -> None:
    """By name: when a worker would pad to so many, and when a batch has so many; eight guided films fit 16 rows."""
    with pytest.raises(PackageRefused, match=r"compiled for 16 rows, 8 guided films together, and batches of 9"):
        load_engine(package, pad_batch_to=9)
    engine = load_engine(package, pad_batch_to=8)
    assert len(films(engine, *(request(str(i), num_frames=1) for i in range(3)))) == 3
    with pytest.raises(InvalidRequest, match="takes 18 rows; this engine is compiled for 16"):
        load_engine(package).generate([request(str(i)) for i in range(9)])
    load_engine(plain_package, pad_batch_to=64)


def test_what_has_not_changed_is_not_compiled(package: Path, build_tiny: Build, tmp_path: Path) -> None:
    """A second build takes its parts from the cache, and is as good."""
    told: list[str] = []
    again = build_tiny(tmp_path, told=told)
    assert [line for line in told if "cache" in line] == [
        "tiny-onnxruntime: step taken from the cache",
        "tiny-onnxruntime: decoder taken from the cache",
    ]
    assert read_manifest(again).files == read_manifest(package).files


@pytest.mark.long
def test_what_has_changed_is_compiled(
    package: Path, build_tiny: Build, tmp_path: Path, make_tiny_wan: Callable[[int], Path]
) -> None:
    """Other weights, or another profile, though the cache has parts of their names."""
    for changes in ({"weights": make_tiny_wan(5)}, {"profile": replace(RECIPE.profile, max_frames=29)}):
        told: list[str] = []
        build_tiny(tmp_path, told=told, **changes)
        assert not any("cache" in line for line in told)
    assert package.is_dir()


def test_beyond_its_budget_nothing_is_written(build_tiny: Build, tmp_path: Path) -> None:
    """The refusal tells each figure; the package that was there stays, and no part of the new one does."""
    package = build_tiny(tmp_path, backend="fused")
    before = (package / "engine.json").read_bytes()
    with pytest.raises(BuildRefused, match=r"latents are off by .* after step \d, 1e-12 is allowed; .*PSNR.*99.5"):
        build_tiny(tmp_path, backend="fused", budget=replace(EXACT, latent_error=1e-12, psnr=99.5))
    assert (package / "engine.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny-onnxruntime"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"max_width": 112}, "cannot make the profile's films: width is 112"),
        ({"min_width": 48}, "leaves out the default film"),
        ({"max_rows": 1}, "no room for guidance"),
    ],
)
def test_a_profile_that_fits_no_model_is_refused(
    build_tiny: Build, tmp_path: Path, changes: dict[str, int], why: str
) -> None:
    """Films that the model cannot make, none that it makes by default, no room for guidance."""
    with pytest.raises(BuildRefused, match=why):
        build_tiny(tmp_path, profile=replace(RECIPE.profile, **changes))


def test_no_package_of_a_package(build_tiny: Build, package: Path, tmp_path: Path) -> None:
    """A package is made of weights."""
    with pytest.raises(BuildRefused, match="is an engine package itself"):
        build_tiny(tmp_path, weights=package)


def test_a_gpus_engine_is_not_built_without_one(build_tiny: Build, tmp_path: Path) -> None:
    """It is told apart from a build that is not accurate."""
    with pytest.raises(BuildRefused, match="torch sees none here") as refused:
        build_tiny(tmp_path, device="cuda")
    assert refused.value.cannot_here


def test_another_backend_than_its_own_is_refused(package: Path) -> None:
    """A package runs by what it was built for."""
    with pytest.raises(PackageRefused, match="built for backend onnxruntime, and eager was asked for"):
        load_engine(package, backend="eager")


def test_every_recipe_is_whole() -> None:
    """Each names itself, and its content goes through JSON unchanged."""
    for name in RECIPES:
        recipe = find_recipe(name)
        assert recipe.name == name
        assert json.loads(json.dumps(recipe.to_json()))["name"] == name
        if recipe.quantization is not None and recipe.backend != "tensorrt":  # which is not installed without a GPU
            assert recipe.quantization.form in find_form(recipe.backend).quantizes


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("wan-")])
def test_a_published_model_can_make_its_recipes_films(name: str, tmp_path: Path) -> None:
    """The profile fits the card that is worked out of the published configs, and the probes' films are within it."""
    recipe = find_recipe(name)
    published = PUBLISHED[recipe.model]
    index = {"_class_name": "WanPipeline"}
    scheduler = {"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0}
    scheduler |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for path, content in (
        ("model_index.json", index),
        ("transformer/config.json", published.transformer),
        ("vae/config.json", published.vae),
        ("scheduler/scheduler_config.json", scheduler),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(json.dumps(content))
    card = read_card(tmp_path)
    recipe.profile.check(card)
    spec = recipe.profile.usual(card)
    assert (spec.width, spec.height, spec.num_frames) == (832, 480, 81)


def test_psnr_and_ssim_are_those_of_the_literature() -> None:
    """PSNR of a known error; SSIM of equal frames is 1, and falls where structure is lost, not where light is."""
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 180, (2, 32, 32, 3), dtype=np.uint8)
    assert psnr(frames, frames) == 99.0
    assert psnr(frames, frames + 16) == pytest.approx(20 * np.log10(255 / 16))
    assert ssim(frames, frames) == pytest.approx(1.0)
    lighter, shuffled = frames + 10, rng.permuted(frames, axis=1)
    assert ssim(frames, lighter) > 0.95
    assert ssim(frames, shuffled) < 0.3


def test_mates_change_no_bit(package: Path) -> None:
    """A padded engine makes a film the same to the last bit in any company, however long its mates' prompts are."""
    engine = load_engine(package, pad_batch_to=4)
    me = request("me", prompt="a cat walks on grass", seed=5)
    mates = [request("a", prompt="two robots dance at sunset " * 8, seed=6), request("b", prompt="a ball", seed=7)]
    (alone,) = films(engine, me)
    for batch in ((mates[0], me), (mates[1], mates[0], me), (me, mates[1])):
        (mine,) = [film for film in films(engine, *batch) if film.request.request_id == "me"]
        assert np.array_equal(mine.latents, alone.latents)
        assert np.array_equal(mine.frames, alone.frames)
