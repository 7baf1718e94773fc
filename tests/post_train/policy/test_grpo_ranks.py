"""Policy optimisation on two gloo processes: one policy on both, and the policy that one process has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from post_train.checkpoint import checkpoints
from post_train.lora import ATTENTION, Lora
from post_train.policy.methods import DrawnSteps
from post_train.policy.plan import MismatchedGroupError
from post_train.policy.selectors import OneStep
from post_train.recipes.grpo import GrpoRecipe
from tests.post_train.policy.small_grpo import small_grpo, small_run
from tests.post_train.two_ranks import told_by_two_ranks

_WORKER = """
import json, sys
from pathlib import Path
import torch
from post_train.distributed import leave_ranks, start_ranks
from post_train.policy.plan import MismatchedGroupError
from tests.post_train.policy.small_grpo import small_grpo, small_run
from tests.post_train.policy.test_grpo_ranks import recipes

torch.set_num_threads(1)
model, root = (Path(a) for a in sys.argv[1:3])
ranks = start_ranks(torch.device("cpu"))
told = {}

def digest(run):
    return [float(p.full_tensor().double().sum()) for p in run.module.parameters()]

for name, recipe in recipes().items():
    run = small_run(recipe, model, root / name, novelty=0.5, ranks=ranks)
    run.train()
    told[name] = digest(run)
    told[name + " looks"] = [look.score for look in run.validator.looks]
    told[name + " spent"] = run.task.spent
    told[name + " steps"] = run.trainer.step
    told[name + " norms"] = run.task.learner.state()[1]
alike = small_run(small_grpo(steps=2), model, root / "alike", reward=lambda _: 1.0, ranks=ranks)
alike.train()
told["alike"] = digest(alike)
other = small_run(small_grpo(steps=2), model, root / "other", ranks=ranks)
other.task.seed += ranks.rank
try:
    other.trainer.train(report=print)
except MismatchedGroupError as error:
    told["apart"] = str(error)
(root / f"rank-{ranks.rank}.json").write_text(json.dumps(told))
leave_ranks(ranks)
"""

LEARNT = ("flash", "nft", "lora", "split", "sage")


def recipes() -> dict[str, GrpoRecipe]:
    """What both ranks run, and a lone process; but for `bounded`, whose cost has what ranks compute for one another.

    Its draws, at steps of their own, do not divide evenly among ranks.
    """
    wild = small_grpo(steps=20)
    assert isinstance(wild.policy.method, DrawnSteps)
    apart = replace(wild.policy.method, selector=OneStep(shared=False))
    return {
        "flash": small_grpo(steps=4),
        "nft": small_grpo("nft", steps=2),
        "lora": small_grpo("dance", steps=2, lora=Lora(rank=4, alpha=8, targets=ATTENTION)),
        "split": small_grpo(steps=2, prompts=1, updates=1),
        "sage": small_grpo("sage", steps=4),
        "bounded": replace(wild, policy=replace(wild.policy, method=apart, most_forwards=500)),
    }


@pytest.fixture(scope="module")
def together(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of runs that two ranks made, and what each tells of them."""
    root = tmp_path_factory.mktemp("ranks")
    return root, told_by_two_ranks(_WORKER, root, tiny_wan, root)


def test_ranks_hold_one_policy(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """Gradients are synchronised: whole weights and validations are the same on both."""
    _, (first, second) = together
    for what in (*LEARNT, "bounded"):
        for told in (what, *(f"{what} {kind}" for kind in ("looks", "spent", "steps", "norms"))):
            assert first[told] == second[told]
    assert 0 < first["bounded steps"] < 20
    assert first["bounded spent"] >= 500
    assert first["alike"] == second["alike"]


@pytest.mark.parametrize("what", LEARNT)
def test_two_ranks_equal_one_process(
    tiny_wan: Path, together: tuple[Path, list[dict[str, Any]]], tmp_path: Path, what: str
) -> None:
    """The same rollouts, advantages over all films, and update: equal weights, by AdamW to a hundredth of their way.

    And the same agreement of gradients, of which each rank has its part alone. `split` has its one group on both.
    """
    root, _ = together
    alone = small_run(recipes()[what], tiny_wan, tmp_path / what, novelty=0.5)
    start = {n: p.detach().clone() for n, p in alone.module.named_parameters()}
    alone.train()
    one, two = (load_file(checkpoints(r)[-1] / "weights.safetensors") for r in (tmp_path / what, root / what))
    assert one.keys() == two.keys()
    moved = torch.cat([(v - start[n]).flatten() for n, v in one.items()])
    apart = torch.cat([(v - two[n]).flatten() for n, v in one.items()])
    assert float(apart.norm()) < 0.01 * float(moved.norm())
    diversity, by_both = (_logged(r, "diversity") for r in (tmp_path / what, root / what))
    assert by_both == pytest.approx(diversity, rel=1e-3)
    agreed, by_both = (_logged(r, "agreement") for r in (tmp_path / what, root / what))
    assert agreed[0] == 0.0 != agreed[1]
    assert by_both == pytest.approx(agreed, abs=1e-2)


def _logged(run: Path, figure: str) -> list[float]:
    return [json.loads(line)[figure] for line in (run / "log.jsonl").read_text().splitlines()]


def test_ranks_that_would_make_other_films_are_refused(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """A rank with another seed plans other groups; both stop with the same sentence."""
    _, (first, second) = together
    assert first["apart"] == second["apart"]
    assert "ranks have planned different rollouts" in first["apart"]
    assert issubclass(MismatchedGroupError, ValueError)
