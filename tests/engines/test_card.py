"""A model's card: read from rushes.json or derived from a plain diffusers folder, and refused with clear sentences."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.card import read_card
from engines.errors import InvalidModel
from tests.tiny_wan import CARD, build_tiny_wan, save_pipeline


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(build_tiny_wan(), tmp_path_factory.mktemp("models") / "plain wan", card=None)


@pytest.fixture
def copy_of(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


def write_card(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    card = copy.deepcopy(CARD)
    edit(card)
    folder.mkdir(exist_ok=True)
    (folder / "rushes.json").write_text(json.dumps(card))
    return folder


def test_a_card_is_read_as_written(tiny_wan: Path) -> None:
    """Every figure of rushes.json is in the card."""
    card = read_card(tiny_wan)
    assert card.name == "tiny-wan"
    assert card.family == "wan"
    assert {name: getattr(card.defaults, name) for name in CARD["defaults"]} == CARD["defaults"]
    assert {name: getattr(card.limits, name) for name in CARD["limits"]} == CARD["limits"]


def test_a_card_is_frozen(tiny_wan: Path) -> None:
    """Nobody changes a card in passing."""
    with pytest.raises(AttributeError):
        read_card(tiny_wan).defaults.width = 5  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda card: card.update(colour="red"), "unknown key colour"),
        (lambda card: card["limits"].update(max_wdith=5), "unknown key limits.max_wdith"),
        (lambda card: card["defaults"].pop("fps"), "defaults.fps is missing"),
        (lambda card: card.pop("limits"), "limits is missing"),
        (lambda card: card["defaults"].update(width="64"), r"defaults.width: .* integer \(found '64'\)"),
        (lambda card: card["defaults"].update(width=True), "defaults.width"),
        (lambda card: card["limits"].update(max_work=0), "limits.max_work: .* greater than 0"),
        (lambda card: card["defaults"].update(sampler="dpm"), "defaults.sampler: .*'unipc' or 'euler'"),
        (lambda card: card["defaults"].update(guidance_scale=float("nan")), "defaults.guidance_scale"),
        (lambda card: card.update(version=2), "version 2; this program reads version 1"),
        (lambda card: card.pop("version"), "version None"),
        (lambda card: card.update(name="no spaces/here please"), "name: "),
        (lambda card: card["limits"].update(min_width=128), "limits.min_width 128 is above limits.max_width"),
        (lambda card: card["defaults"].update(width=40), "defaults break the card's own limits: width is 40"),
        (lambda card: card["limits"].update(max_work=10), "defaults break the card's own limits: width x height"),
    ],
)
def test_a_wrong_card_is_refused_by_key(tmp_path: Path, edit: Callable[[dict[str, Any]], object], said: str) -> None:
    """Each mistake is named with its key, and with the value seen where there is one."""
    with pytest.raises(InvalidModel, match=said):
        read_card(write_card(tmp_path / "model", edit))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A card with two mistakes names both."""

    def edit(card: dict[str, Any]) -> None:
        card["colour"] = card["defaults"].pop("fps")

    with pytest.raises(InvalidModel, match=r"(?s)(?=.*unknown key colour)(?=.*defaults\.fps is missing)"):
        read_card(write_card(tmp_path / "model", edit))


def test_a_plain_folder_gets_a_card_from_its_configs(plain: Path) -> None:
    """Without rushes.json the card has Wan 2.1's defaults, and multiples from VAE and patch size."""
    card = read_card(plain)
    assert card.name == "plain-wan"
    defaults, limits = card.defaults, card.limits
    assert (defaults.width, defaults.height, defaults.num_frames, defaults.fps) == (832, 480, 81, 16)
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (50, 5.0)
    assert (defaults.sampler, defaults.flow_shift) == ("unipc", 3.0)
    assert (limits.spatial_multiple, limits.temporal_multiple) == (16, 4)


def test_other_forms_get_their_own_figures(tmp_path: Path) -> None:
    """Wan 2.2's 5B form has coarser latents, 720p and 24 fps; a folder with Euler gets Euler and its shift."""
    ti2v = save_pipeline(build_tiny_wan(expand_timesteps=True, euler=True), tmp_path / "ti2v", card=None)
    card = read_card(ti2v)
    assert card.limits.spatial_multiple == 32
    assert (card.defaults.width, card.defaults.height, card.defaults.num_frames, card.defaults.fps) == (
        1280,
        704,
        121,
        24,
    )
    assert (card.defaults.sampler, card.defaults.flow_shift) == ("euler", 3.0)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("model_index.json", {"_class_name": "WanImageToVideoPipeline"}, "WanImageToVideoPipeline.*only WanPipeline"),
        ("scheduler/scheduler_config.json", {"_class_name": "DPMSolver"}, "'DPMSolver' is not one .*rushes.json"),
        ("scheduler/scheduler_config.json", {"solver_order": 3}, "with solver_order=3 is not computed"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "prediction_type='epsilon'"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas=True"),
        ("scheduler/scheduler_config.json", {"flow_shift": "big"}, r"defaults.flow_shift: .*found 'big'"),
        ("vae/config.json", {"scale_factor_spatial": "8"}, "scale_factor_spatial is '8'"),
        ("vae/config.json", {"scale_factor_temporal": 0}, "scale_factor_temporal is 0"),
        ("transformer/config.json", {"patch_size": [2, 2, 2]}, r"only \[1, n, n\]"),
        ("transformer/config.json", {"patch_size": "big"}, "three whole numbers from 1 to 64"),
    ],
)
def test_a_plain_folder_of_another_kind_is_refused(
    copy_of: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    """What would give another film than stock diffusers is refused, not guessed."""
    edit_json(copy_of / file, **changes)
    with pytest.raises(InvalidModel, match=said):
        read_card(copy_of)


def test_what_a_scheduler_config_leaves_out_is_the_class_default(copy_of: Path) -> None:
    """UniPC without a prediction type is epsilon in diffusers, which is not a flow model."""
    path = copy_of / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    del config["prediction_type"]
    path.write_text(json.dumps(config))
    with pytest.raises(InvalidModel, match="prediction_type='epsilon'"):
        read_card(copy_of)
