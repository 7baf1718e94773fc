"""`rushes train curate` and `rushes train best-of`: the data of fine-tuning and of its control, by a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from post_train.command_options import Rewards, start_torch, tell

if TYPE_CHECKING:
    from post_train.rewards.diorama import TextAlignment

_Clips = Annotated[int, typer.Option(min=1, help="How many wild clips are looked at.")]
_First = Annotated[int, typer.Option(min=0, help="The seed of the first of them.")]
_Folder = Annotated[Path, typer.Option(help="What it measured and made, so that it can go on when interrupted.")]
_Judge = Annotated[str, typer.Option(help="The judge by its role, or a folder of one; never the held-out one.")]
_Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


def curate(
    clips: _Clips = 16_384,
    first_seed: _First = 100_000_000,
    further: Annotated[
        int, typer.Option(min=0, help="Wild clips after those, looked at where their caption asks for two objects.")
    ] = 24_576,
    side: Annotated[int, typer.Option(min=32, help="Pixels they are looked at in.")] = 64,
    frames: Annotated[int, typer.Option(min=5, help="Frames of a clip.")] = 17,
    out: Annotated[Path, typer.Option(help="The list of seeds that is written.")] = Path("runs/curated.json"),
    folder: _Folder = Path("runs/curation"),
    judge: _Judge = "reward",
    threads: _Threads = 1,
) -> None:
    """Choose a fine-tuning set out of the wild split by filters that never look at the ground truth."""
    reward = _reward(judge, threads)
    from post_train.data.curate import Candidates, measure  # noqa: PLC0415
    from post_train.data.curate import curate as choose  # noqa: PLC0415
    from post_train.data.curation import told  # noqa: PLC0415
    from post_train.recipes.curation import diorama_curation  # noqa: PLC0415

    config = diorama_curation()
    candidates = Candidates(
        first_seed=first_seed,
        clips=clips,
        side=side,
        num_frames=frames,
        further=further,
        further_with=config.emphasis.attribute if config.emphasis else None,
    )
    measures = measure(candidates, folder, reader=reward.judge, reward=reward, tell=tell)
    chosen, done = choose(candidates, config, measures, judge=reward.digest)
    chosen.write(out)
    typer.echo(told(done))
    tell(f"wrote {out}: rushes train sft --model diorama --data {out}")


def best_of(
    model: Annotated[str, typer.Option(help="Whose films: a model folder or a name.")] = "diorama",
    prompts: Annotated[int, typer.Option(min=1, help="Captions of so many wild clips are the prompts.")] = 1000,
    first_seed: _First = 100_000_000,
    count: Annotated[int, typer.Option(min=2, help="Films for each prompt, of which the best is kept.")] = 8,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Films made at a time.", show_default="those of one prompt")
    ] = None,
    reward: Rewards = None,
    folder: _Folder = Path("runs/best-of"),
    threads: _Threads = 1,
) -> None:
    """Make the control's data: the best of a model's own films for each prompt, by rewards."""
    start_torch(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from engines.engine import load_engine  # noqa: PLC0415
    from post_train.data.wild_prompts import wild_prompts  # noqa: PLC0415
    from post_train.grpo_rewards import OURS, panel_of  # noqa: PLC0415
    from post_train.model_parts import model_digests  # noqa: PLC0415
    from post_train.policy.best_of import BestOf, gains, write_best_of  # noqa: PLC0415

    panel = panel_of(reward or OURS)
    parent = find_model(model)
    # The same films to the last digits, sooner.
    engine = load_engine(parent, backend="fused")
    texts = wild_prompts(first_seed, prompts, num_frames=engine.card.defaults.num_frames)
    digest = model_digests(parent).whole
    config = BestOf(count=count, batch=batch or count)
    try:
        chosen = write_best_of(folder, texts, config, engine=engine, model_digest=digest, panel=panel, tell=tell)
    finally:
        panel.close()
    tell(gains(panel, chosen))
    tell(f"rushes train sft --model {model} --recipe best-of-8 --data {folder}")


def _reward(judge: str, threads: int) -> TextAlignment:
    """Text alignment by a judge that may choose: the held-out one judges what is published, and nothing else."""
    start_torch(threads)
    from post_train.rewards.diorama import TextAlignment  # noqa: PLC0415
    from post_train.rewards.judges import judge_folder, judge_from, load_judge  # noqa: PLC0415
    from post_train.rewards.roles import Role  # noqa: PLC0415

    folder = Path(judge)
    if judge == Role.HELD_OUT or folder.resolve() == judge_folder(Role.HELD_OUT).resolve():
        raise ValueError("the held-out judge chooses nothing; use reward")
    return TextAlignment(judge_from(folder) if folder.is_dir() else load_judge(judge))
