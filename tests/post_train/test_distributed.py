"""Two gloo processes train one model: equal to each other, equal to one process, and resumed as exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from post_train.checkpoint import checkpoints
from post_train.lora import Lora
from post_train.sft_command import sft
from post_train.torchrun import torchrun_words
from tests.post_train.small_sft import small_run, small_sft, write_clips
from tests.post_train.two_ranks import told_by_two_ranks

# What two ranks add in another order than one moves a weight by rounding, which Adam's division by a small second
# moment enlarges up to its step of lr = 2e-3; over these steps it stayed below 1e-6.
_TOLERANCE = 2e-5

_WORKER = """
import json, sys
from pathlib import Path
import torch
from post_train.data.clips import FolderClips
from post_train.distributed import leave_ranks, start_ranks
from post_train.lora import Lora
from tests.post_train.small_sft import small_run, small_sft

torch.set_num_threads(1)
model, clips, root = (Path(a) for a in sys.argv[1:4])
ranks = start_ranks(torch.device("cpu"))
told = {}

def digest(run):
    return [float(p.full_tensor().double().sum()) for p in run.task.module.parameters()]

def parts(run):
    return [p.to_local().numel() for p in run.task.module.parameters()]

full = small_run(small_sft(steps=6), model, clips, root / "full", ranks=ranks)
full.trainer.train(until=3, report=print)
again = small_run(small_sft(steps=6), model, clips, root / "full", ranks=ranks, resume=True)
again.train()
told["full"], told["parts"] = digest(again), parts(again)
told["whole"] = [p.numel() for p in again.task.module.parameters()]
straight = small_run(small_sft(steps=6), model, clips, root / "straight", ranks=ranks)
straight.train()
told["straight"] = digest(straight)
told["batch"] = straight.effective_batch()
lora = small_run(small_sft(lora=Lora(rank=4, alpha=8.0), steps=4), model, clips, root / "lora", ranks=ranks)
lora.train()
told["lora"] = digest(lora)
try:
    small_run(small_sft(batch=3), model, clips, root / "odd", ranks=ranks)
except ValueError as error:
    told["odd"] = str(error)
with torch.no_grad():
    next(lora.task.module.parameters()).to_local().fill_(float("nan") if ranks.rank == 1 else 0.0)
lora.trainer.step = 0
try:
    lora.trainer.train(until=1, report=print)
except ValueError as error:
    told["nan"] = str(error)
(root / f"rank-{ranks.rank}.json").write_text(json.dumps(told))
leave_ranks(ranks)
"""


@pytest.fixture(scope="module")
def together(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of runs that two ranks made, and what each rank tells of them."""
    root = tmp_path_factory.mktemp("ranks")
    write_clips(root / "clips")
    return root, told_by_two_ranks(_WORKER, root, tiny_wan, root / "clips", root)


def _tensors(run: Path, group: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run)[-1] / f"{group}.safetensors")


def test_ranks_hold_one_model(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """After training, whole weights are the same on both ranks, and each rank holds a part of them only."""
    _, (first, second) = together
    for what in ("full", "straight", "lora"):
        assert first[what] == second[what]
    assert [a + b for a, b in zip(first["parts"], second["parts"], strict=True)] == first["whole"]
    assert sum(second["parts"]) > 0.4 * sum(first["whole"])
    assert first["batch"] == "effective batch 4 clips a step = 2 ranks x 2 clips, in 1 part of at most 2"


def test_two_ranks_equal_one_process(tiny_wan: Path, together: tuple[Path, list[dict[str, Any]]]) -> None:
    """The same global batch gives the same weights and average, to 2e-5 in fp32: gradients are synchronised."""
    root, _ = together
    for what, recipe in (
        ("straight", small_sft(steps=6)),
        ("lora", small_sft(lora=Lora(rank=4, alpha=8.0), steps=4)),
    ):
        alone = small_run(recipe, tiny_wan, root / "clips", root / f"{what}-alone")
        start = {n: p.detach().clone() for n, p in alone.task.module.named_parameters()}
        alone.train()
        for group in ("weights", "average"):
            one, two = _tensors(root / f"{what}-alone", group), _tensors(root / what, group)
            assert one.keys() == two.keys()
            worst = max(float((v - two[n]).abs().max()) for n, v in one.items())
            moved = max(float((v - start[n]).abs().max()) for n, v in one.items())
            assert worst < _TOLERANCE < moved / 20, (what, group, worst, moved)


def test_two_ranks_resume_exactly(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """Three steps and three more after a resume give, to the bit, what six steps give, optimizer and average too."""
    root, _ = together
    for group in ("weights", "average", "optimizer"):
        one, two = _tensors(root / "full", group), _tensors(root / "straight", group)
        assert one.keys() == two.keys()
        assert all(torch.equal(v, two[n]) for n, v in one.items()), group


def test_one_process_goes_on_with_the_run_of_two(
    tiny_wan: Path, together: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A checkpoint holds whole tensors, so the number of ranks may change between two runs."""
    root, _ = together
    alone = small_run(small_sft(steps=6), tiny_wan, root / "clips", root / "full", resume=True)
    assert alone.trainer.resume()
    saved = _tensors(root / "full", "weights")
    assert all(torch.equal(p.detach(), saved[n]) for n, p in alone.task.module.named_parameters())


def test_what_ranks_cannot_share_is_refused(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """A batch that does not divide, and a NaN that only one rank sees, end the run on both with the same words."""
    _, (first, second) = together
    assert first["odd"] == second["odd"]
    assert "does not divide among 2 ranks" in str(first["odd"])
    assert first["nan"] == second["nan"]
    assert "step 1 is nan" in str(first["nan"])


@pytest.mark.parametrize("typed", [["--nproc", "2", "--steps", "3"], ["--steps", "3", "--nproc=2"]])
def test_the_command_starts_itself_by_torchrun(typed: list[str]) -> None:
    """torchrun, which reads abbreviations even among its script's words, is not shown --nproc."""
    words = torchrun_words(2, typed, "post_train.sft_command")
    assert words[3:] == ["--standalone", "--nproc-per-node=2", "-m", "post_train.sft_command", "--steps", "3"]
    parsed = get_args_parser().parse_args(words[3:])
    assert parsed.training_script_args == ["--steps", "3"]


def test_a_batch_that_does_not_divide_starts_nothing(tiny_wan: Path, tmp_path: Path) -> None:
    """Before any process is started, one sentence."""
    with pytest.raises(ValueError, match="a batch of 3 clips does not divide among 2 ranks"):
        sft(model=str(tiny_wan), out=tmp_path / "run", batch=3, nproc=2)
