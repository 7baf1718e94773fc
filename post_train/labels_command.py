"""`rushes train to-label`: films for people to label by eye, under numbers that tell nothing of their prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from post_train.command_options import Threads, start_torch, tell

_FIRST_CLIP = 1_250_000_000  # of clips whose captions no run trains on


def to_label(
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not hold labels yet.")],
    model: Annotated[str, typer.Option(help="Whose films: a built-in model's name or a model folder.")] = "diorama",
    count: Annotated[int, typer.Option(min=1, help="How many films.")] = 200,
    first_clip: Annotated[int, typer.Option(min=0, help="The clip whose caption is the first prompt.")] = _FIRST_CLIP,
    per_sheet: Annotated[int, typer.Option(min=1, help="Films on one contact sheet.")] = 10,
    threads: Threads = 1,
) -> None:
    """Make films to label: numbered films, contact sheets to look at, and a labels.json to fill in."""
    start_torch(threads)
    from engines.catalog import find_model  # noqa: PLC0415
    from engines.engine import load_engine  # noqa: PLC0415
    from engines.whole_writes import write_whole  # noqa: PLC0415
    from post_train.contact_sheet import write_sheet  # noqa: PLC0415
    from post_train.data.diorama.world import make_clip  # noqa: PLC0415
    from post_train.films import FilmOrder, draw_films  # noqa: PLC0415
    from post_train.model_parts import model_digests  # noqa: PLC0415
    from post_train.rewards.labelled import LABELS, blank_labels, write_film  # noqa: PLC0415

    if (out / LABELS).exists():
        raise ValueError(f"{out / LABELS} is there already; name another folder, or delete it if nobody labelled it")
    folder = find_model(model)
    orders = [
        FilmOrder(name=f"{i:04d}", prompt=make_clip(first_clip + i, side=32).captions.full.text, seed=first_clip + i)
        for i in range(count)
    ]
    shown = []
    for order, film in draw_films(load_engine(folder), orders):
        write_film(out / f"{order.name}.webp", film.frames)
        shown.append((order.name, film.frames))
        if len(shown) % per_sheet == 0 or len(shown) == count:
            first = len(shown) - 1 - (len(shown) - 1) % per_sheet
            write_sheet(out / f"sheet-{first:04d}.png", shown[first:])
            tell(f"{len(shown)} of {count} films")
    write_whole(out / LABELS, blank_labels([o.name for o in orders], model_digests(folder).whole))
    tell(f"look at {out}/sheet-*.png and fill in {out / LABELS}; then rushes train reward --measure --labels {out}")
