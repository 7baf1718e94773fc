"""A judge's accuracy card: how often it is right on held-out films, per attribute, and if its doubts are honest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.whole_writes import write_whole
from post_train.data.diorama.asked import Asked
from post_train.rewards.diorama import Alignment, alignment
from post_train.rewards.judges import Judge, JudgeError

CARD = "card.json"
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """`right` of `n` answers; the error of the share `value` is sqrt(value (1 - value) / n)."""

    right: int
    n: int

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was measured under one condition: accuracy by attribute, and text alignment of films with true captions.

    Such films deserve 1, so `mean_ta` is what the judge's errors leave of it; `stated_noise` is the root mean square of
    the errors it states, `seen_noise` that of those it makes: where they agree, its doubts can be believed.
    """

    accuracy: dict[str, Accuracy]
    mean_ta: float
    stated_noise: float
    seen_noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """`conditions` by name (clean, round_trip, labelled); `digest` is the measured judge's, `vae` that of the VAE."""

    judge: str
    digest: str
    world_version: int
    vae: str
    conditions: dict[str, Conditions]


def measured(judge: Judge, films: Sequence[NDArray[np.uint8]], asked: Sequence[Asked]) -> Conditions:
    """The judge's accuracy on `films`, which show what `asked` says of each; None in it is not held to anything."""
    found: list[Alignment] = []
    for start in range(0, len(films), _BATCH):
        beliefs = judge.believe(films[start : start + _BATCH])
        found.extend(alignment(a, b) for a, b in zip(asked[start : start + _BATCH], beliefs, strict=True))
    errors = np.array([1 - f.value for f in found])
    return Conditions(
        accuracy=_accuracy(asked, found),
        mean_ta=float(1 - errors.mean()),
        stated_noise=float(np.sqrt(np.mean([f.noise**2 for f in found]))),
        seen_noise=float(np.sqrt((errors**2).mean())),
    )


def _accuracy(asked: Sequence[Asked], found: Sequence[Alignment]) -> dict[str, Accuracy]:
    """By attribute; weather, camera and hills also count where there are none."""
    right: dict[str, int] = {}
    count: dict[str, int] = {}
    for item in (i for f in found for i in f.items):
        right[item.attribute.value] = right.get(item.attribute.value, 0) + item.present
        count[item.attribute.value] = count.get(item.attribute.value, 0) + 1
    assert len(asked) == len(found)
    return {name: Accuracy(right=right[name], n=n) for name, n in count.items()}


def write_card(folder: Path, card: Card) -> None:
    """Writes the card into a judge's folder, whole or not at all."""
    content = asdict(card)
    for name, conditions in card.conditions.items():
        for attribute, accuracy in conditions.accuracy.items():
            content["conditions"][name]["accuracy"][attribute]["value"] = round(accuracy.value, 4)
    write_whole(folder / CARD, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_card(folder: Path) -> Card:
    """The card in a judge's folder; JudgeError when there is none."""
    if not (folder / CARD).is_file():
        raise JudgeError(f"{folder} has no accuracy card; make one with `rushes train reward --measure`")
    content = json.loads((folder / CARD).read_text())
    conditions = {
        name: Conditions(
            **{
                **c,
                "accuracy": {k: Accuracy(right=a["right"], n=a["n"]) for k, a in c["accuracy"].items()},
            }
        )
        for name, c in content.pop("conditions").items()
    }
    return Card(**content, conditions=conditions)


def card_text(card: Card) -> str:
    """The card as lines to read."""
    lines = [f"judge {card.judge} {card.digest}, world {card.world_version}, VAE {card.vae}"]
    for name, c in card.conditions.items():
        shares = "  ".join(f"{k} {a.value:.4f} (n={a.n})" for k, a in c.accuracy.items())
        lines.append(f"{name}: {shares}")
        lines.append(
            f"{name}: TA of true films {c.mean_ta:.4f}, noise stated {c.stated_noise:.4f}, seen {c.seen_noise:.4f}"
        )
    return "\n".join(lines)
