"""`rushes engines`: what a person types, what is told, and how it ends."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from engines import package_commands
from engines.package import read_manifest, sign
from engines.recipes import RECIPES
from engines.signing import signing_key
from tests.command_line import run_rushes


def test_list_names_every_recipe(tmp_path: Path) -> None:
    """With its backend, and whether it was built here."""
    done = run_rushes("engines", "list", "--out", str(tmp_path), "--json")
    found = json.loads(done.stdout)
    assert [row["recipe"] for row in found["recipes"]] == list(RECIPES)
    assert all(row["built_at"] is None for row in found["recipes"])
    assert run_rushes("engines", "list", "--out", str(tmp_path)).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")
def test_what_this_machine_cannot_build_is_passed_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --all each reason is told once, with all that it is the reason of; by name it is a failure."""
    some = {name: RECIPES[name] for name in ("diorama-cuda", "diorama-rtx", "wan-1.3b-tensorrt")}
    monkeypatch.setattr("engines.recipes.RECIPES", some)
    here = {"out": tmp_path / "out", "cache": tmp_path / "cache", "key": tmp_path / "key.pem"}
    package_commands.build(None, all_recipes=True, **here)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].endswith("sees none here: diorama-cuda, diorama-rtx")
    assert told[1].startswith("skipped, of published weights, Wan-AI/Wan2.1-T2V-1.3B-Diffusers,")
    with pytest.raises(typer.Exit) as ended:
        package_commands.build(["diorama-cuda"], all_recipes=False, **here)
    assert ended.value.exit_code == 1
    assert "diorama-cuda  refused" in capsys.readouterr().out


def test_show_tells_what_a_package_is(plain_package: Path) -> None:
    """In words, and as its whole manifest."""
    told = run_rushes("engines", "show", str(plain_package)).stdout
    assert "tiny-fused" in told
    assert "any" in told  # machine
    assert json.loads(run_rushes("engines", "show", str(plain_package), "--json").stdout)["parent_name"] == "tiny-wan"


def test_show_tells_what_is_not_computed_in_full(plain_package: Path, tmp_path: Path, key_file: Path) -> None:
    """How many layers are in fewer bits, and which steps, counted from 1, are extrapolated."""
    mine = Path(shutil.copytree(plain_package, tmp_path / "mine"))
    before = read_manifest(mine)
    manifest = replace(
        before,
        recipe={**before.recipe, "quantization": {"form": "int4-weights"}},
        quantization={"step": {"rounded": 5, "kept": ["a", "b"], "layers": []}},
        step_cache={"num_steps": 8, "reused": [3, 5], "errors": []},
    )
    sign(mine, manifest, signing_key(key_file))
    told = run_rushes("engines", "show", str(mine)).stdout
    assert "5 in int4-weights, 2 as they were" in told
    assert "of 8 not computed: 4, 6" in told


def test_verify_ends_well_or_tells_why_not(plain_package: Path, tmp_path: Path, key_file: Path) -> None:
    """By the machine's keys or by one that is named."""
    good = run_rushes("engines", "verify", str(plain_package), "--json")
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    other = tmp_path / "other.pem"
    signing_key(other)
    bad = run_rushes("engines", "verify", str(plain_package), "--trusted", str(other.with_suffix(".pub.pem")))
    assert bad.returncode == 2
    assert bad.stderr.startswith("rushes: the signature of the engine package")
    mine = Path(shutil.copytree(plain_package, tmp_path / "mine"))
    (mine / "rushes.json").write_text("{}")
    spoilt = run_rushes("engines", "verify", str(mine))
    assert (spoilt.returncode, spoilt.stdout) == (2, "")
    assert "rushes.json of the engine package mine is not what was signed" in spoilt.stderr


def test_compare_tells_accuracy_and_ratios(plain_package: Path, tiny_wan: Path) -> None:
    """Of a package beside its model; a ratio comes with its quartiles, and with how busy the machine was."""
    done = run_rushes("engines", "compare", str(plain_package), str(tiny_wan), "--json")
    found = json.loads(done.stdout)
    assert set(found["seconds"]) == {"encode", "denoise", "decode"}
    assert all(0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in found["seconds"].values())
    assert (found["films"], len(found["load"])) == (9, 2)
    assert max(found["accuracy"]["latent_errors"]) < 1e-3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("build",), "name the recipes to build, or give --all"),
        (("build", "diorama-fused", "--all"), "name the recipes to build, or give --all"),
        (("build", "no-such"), "unknown engine recipe 'no-such'"),
        (("show", "no-such"), "no-such is no engine package"),
        (("verify", "no-such"), "no-such is no engine package"),
        (("build", "diorama-fused", "--scorer", "no-such"), "unknown scorer 'no-such'"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, before anything is loaded or made."""
    monkeypatch.setenv("RUSHES_ENGINE_KEY", str(tmp_path / "key.pem"))
    done = run_rushes("engines", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
