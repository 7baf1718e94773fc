"""What is worth trying on a GPU is known from the compiler's report, and what was found there is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kernels import tuning
from kernels.aot import TARGETS, Build, Compiled
from kernels.builds_tiled import tiled_builds
from kernels.configurations import TUNABLE, Configuration, configuration_of, configurations, target_of, use_measured
from kernels.dispatch import OperatorUnavailableError
from kernels.measuring import measured
from kernels.tuning import load_tuned, occupancy, save_tuned, shortlist
from tests.command_line import run_rushes

_ONE = Configuration(blocks={"BLOCK_Q": 32, "BLOCK_K": 16}, warps=4, stages=1)


@pytest.fixture(autouse=True)
def _nothing_measured() -> Iterator[None]:
    yield
    use_measured(torch.device("cpu"), {})


def _made(target: str = "sm_90", **facts: int) -> Compiled:
    build = tiled_builds("attention", target)[0]
    return Compiled(build=build, target=target, seconds=0.0, **facts)


@pytest.mark.parametrize(
    ("facts", "share"),
    [
        ({"registers": 32, "shared": 1024}, 1.0),
        # 8 warps of 128 registers a lane: 65,536 / 32,768 programs, 16 warps of 64.
        ({"registers": 128, "shared": 1024}, 0.25),
        ({"registers": 121, "shared": 1024}, 0.25),  # given out by 256 a warp
        ({"registers": 32, "shared": 100 * 1024}, 0.25),
        ({"registers": 32, "shared": 228 * 1024}, 0.0),
        ({"registers": 32, "local": 8}, 0.0),
    ],
)
def test_occupancy(facts: dict[str, int], share: float) -> None:
    """By registers, by shared memory, and none for what spills or does not fit."""
    assert occupancy(_made(**facts), warps=8) == share


def test_few_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best guess, then by occupancy, at most as many as asked; one that spills in any build is not among them."""

    def compiled(build: Build, target: str) -> Compiled:
        q, k = build.constants["BLOCK_Q"], build.constants["BLOCK_K"]
        spills = (q, k) == (128, 128) and build.variant == "block-causal"
        return Compiled(build=build, target=target, seconds=0, registers=q, shared=q * 256, local=int(spills))

    monkeypatch.setattr(tuning, "compile_for", compiled)
    found = shortlist("attention", "sm_90", most=3)
    assert len(found) == 3
    assert found[0][0] == configurations("attention", "sm_90")[0]
    assert found[1][1] >= found[2][1]
    assert occupancy(_made("sm_86", registers=32, shared=1024), warps=8) == 1.0  # a GPU that is not in the list
    assert {"BLOCK_Q": 128, "BLOCK_K": 128} not in [configuration.blocks for configuration, _ in found]


def test_every_target_has_a_choice() -> None:
    """Of each operator that has one; an A100 for the interpreter, and an unknown GPU gets a small one's."""
    for operator in TUNABLE:
        for target in TARGETS:
            assert len(configurations(operator, target)) >= 3
    assert target_of(torch.device("cpu")) == "sm_80"
    assert configurations("attention", "sm_86") == configurations("attention", "sm_89")
    with pytest.raises(ValueError, match="operator 'gated_norm' has no configurations"):
        configurations("gated_norm", "sm_90")


def test_what_was_found_is_kept_by_device(tmp_path: Path) -> None:
    """One file for several devices; what is loaded is what runs, until something else is."""
    path = tmp_path / "kernels.json"
    save_tuned(path, "GPU one", {"attention": _ONE})
    save_tuned(path, "GPU two", {})
    assert load_tuned(path, "GPU one") == {"attention": _ONE}
    assert load_tuned(path, "GPU three") == {}
    assert sorted(json.loads(path.read_text())) == ["GPU one", "GPU two"]
    use_measured(torch.device("cpu"), load_tuned(path, "GPU one"))
    assert configuration_of("attention", torch.zeros(1)) == _ONE
    assert configuration_of("attention", torch.zeros(1, device="meta")) != _ONE
    use_measured(torch.device("cpu"), {})
    assert configuration_of("attention", torch.zeros(1)) == configurations("attention", "sm_80")[0]
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ("[]", "is no file of tuned kernels"),
        ('{"GPU": {"attention": {"blocks": {}}}}', "is no file of tuned kernels"),
        ('{"GPU": {"gelu": {"blocks": {}, "warps": 1, "stages": 1}}}', "no configuration of 'gelu' that can be run"),
        ('{"GPU": {"attention": {"blocks": {"BLOCK_Q": 8}, "warps": 1, "stages": 1}}}', "no configuration of 'atten"),
        (
            '{"GPU": {"attention": {"blocks": {"BLOCK_Q": 48, "BLOCK_K": 16}, "warps": 1, "stages": 1}}}',
            "no configuration of 'attention' that can be run",
        ),
    ],
)
def test_a_broken_file_is_told(text: str, sentence: str, tmp_path: Path) -> None:
    """With what to do about it."""
    path = tmp_path / "kernels.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_tuned(path, "GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    """Neither times nor a choice, and no file appears."""
    with pytest.raises(OperatorUnavailableError, match="torch sees no GPU here"):
        measured(print)
    done = run_rushes("bench", "kernels", "--tune", str(tmp_path / "kernels.json"))
    assert done.returncode == 2
    assert "torch sees no GPU here" in done.stderr
    assert not list(tmp_path.iterdir())
