"""Chooses a fine-tuning set out of scraped clips by what was measured of them, and balances what is left.

Pure functions of measures; thresholds are part of the recipe, and a report tells what each of them drops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from post_train.data.clip_measures import ClipMeasures


@dataclass(frozen=True, slots=True, kw_only=True)
class Emphasis:
    """Clips whose caption has an attribute (`kind:value`) get this share of the draws, however many there are."""

    attribute: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationConfig:
    """What a clip must keep to; units are those of ClipMeasures.

    `max_weight` caps a rare clip's sampling weight, before the `emphasis` on what the model is worst at.
    """

    min_alignment: float
    complete_captions: bool
    max_shake: float
    min_speed: float
    max_speed: float
    max_still_share: float
    min_brightness: float
    max_brightness: float
    min_sharpness: float
    max_blockiness: float
    min_edge_margin: float
    max_weight: float
    emphasis: Emphasis | None


_Test = Callable[[ClipMeasures, CurationConfig], bool]

# Each says whether a clip is to be dropped; a comparison with NaN must drop, so they ask what is kept.
FILTERS: Mapping[str, _Test] = {
    "unreadable caption": lambda m, _: bool(m.unread),
    "caption disagrees": lambda m, c: not m.alignment >= c.min_alignment,
    "caption incomplete": lambda m, c: c.complete_captions and bool(m.untold),
    "shaken": lambda m, c: not m.shake <= c.max_shake,
    "frozen": lambda m, c: not (m.speed >= c.min_speed and m.still_share <= c.max_still_share),
    "too fast": lambda m, c: not m.speed <= c.max_speed,
    "brightness": lambda m, c: not c.min_brightness <= m.brightness <= c.max_brightness,
    "blurred": lambda m, c: not m.sharpness >= c.min_sharpness,
    "compressed": lambda m, c: not m.blockiness <= c.max_blockiness,
    "cut off": lambda m, c: not m.edge_margin >= c.min_edge_margin,
}


def faults(measures: ClipMeasures, config: CurationConfig) -> tuple[str, ...]:
    """The names of all filters that drop a clip; none for one that is kept."""
    return tuple(name for name, drops in FILTERS.items() if drops(measures, config))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterReport:
    """What one filter did: clips that it drops, and those that no other filter would have dropped.

    `precision` and `recall` are against what is really wrong with the clips; None where nobody knows it or where there
    is nothing to divide by.
    """

    name: str
    dropped: int
    alone: int
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationReport:
    """The whole curation: clips measured and kept, filter by filter, and precision and recall of all of them."""

    measured: int
    kept: int
    filters: tuple[FilterReport, ...]
    precision: float | None = None
    recall: float | None = None


def report(found: Mapping[str, Sequence[str]], truth: Mapping[str, Mapping[str, bool]] | None = None) -> CurationReport:
    """What the filters did. `found` maps clips to the filters that drop them.

    `truth`, for the report alone, maps clips to what is wrong with them, under the names of filters: a filter that it
    does not name is not held against it. ValueError when `truth` lacks a clip.
    """
    if truth is not None and found.keys() - truth.keys():
        raise ValueError(f"the truth lacks {len(found.keys() - truth.keys())} of the clips that were measured")
    rows = []
    for name in FILTERS:
        dropped = {clip for clip, names in found.items() if name in names}
        alone = sum(len(found[clip]) == 1 for clip in dropped)
        precision, recall = _against(dropped, found, truth, lambda wrong, name=name: wrong.get(name))
        rows.append(FilterReport(name=name, dropped=len(dropped), alone=alone, precision=precision, recall=recall))
    dropped = {clip for clip, names in found.items() if names}
    precision, recall = _against(dropped, found, truth, lambda wrong: any(wrong.values()))
    return CurationReport(
        measured=len(found),
        kept=len(found) - len(dropped),
        filters=tuple(rows),
        precision=precision,
        recall=recall,
    )


def _against(
    dropped: set[str],
    found: Mapping[str, Sequence[str]],
    truth: Mapping[str, Mapping[str, bool]] | None,
    wrong_by: Callable[[Mapping[str, bool]], bool | None],
) -> tuple[float | None, float | None]:
    """Precision and recall of dropping against the truth, None where it is unknown or 0/0."""
    if truth is None:
        return None, None
    verdicts = {clip: wrong_by(truth[clip]) for clip in found}
    if any(v is None for v in verdicts.values()):
        return None, None
    wrong = {clip for clip, verdict in verdicts.items() if verdict}
    right = len(dropped & wrong)
    return (right / len(dropped) if dropped else None), (right / len(wrong) if wrong else None)


def balanced_weights(attributes: Sequence[Sequence[str]], max_weight: float) -> list[float]:
    """Sampling weights by inverse frequency: the mean, over a clip's attributes, of how much rarer each is than even.

    Of a kind (the part before the colon) that k values share, a value seen in a share p of the mentions counts as
    1 / (k p). Weights lie within [1 / max_weight, max_weight] and then have mean 1. ValueError for max_weight below 1.
    """
    if max_weight < 1:
        raise ValueError(f"max_weight is {max_weight}; a cap on weights is 1 or more")
    mentions = Counter(name for clip in attributes for name in clip)
    kinds: dict[str, list[str]] = {}
    for name in mentions:
        kinds.setdefault(name.partition(":")[0], []).append(name)
    rarity: dict[str, float] = {}
    for names in kinds.values():
        total = sum(mentions[n] for n in names)
        rarity.update({n: total / (len(names) * mentions[n]) for n in names})
    raw = [sum(rarity[n] for n in clip) / len(clip) if clip else 1.0 for clip in attributes]
    capped = [min(max_weight, max(1 / max_weight, w)) for w in raw]
    mean = sum(capped) / len(capped) if capped else 1.0
    return [w / mean for w in capped]


def emphasised_weights(
    weights: Sequence[float], attributes: Sequence[Sequence[str]], emphasis: Emphasis | None
) -> list[float]:
    """Weights scaled so that clips with the attribute have its share of them all; their mean stays.

    ValueError for a share that is not between 0 and 1, or when all the clips or none of them have the attribute.
    """
    if emphasis is None:
        return list(weights)
    if not 0 < emphasis.share < 1:
        raise ValueError(f"the share of {emphasis.attribute} is {emphasis.share}; a share is between 0 and 1")
    has = [emphasis.attribute in names for names in attributes]
    total = sum(weights)
    own = sum(w for w, h in zip(weights, has, strict=True) if h)
    if all(has) or not any(has):
        raise ValueError(f"{sum(has)} of {len(has)} clips have {emphasis.attribute}; it cannot have {emphasis.share}")
    up, down = emphasis.share * total / own, (1 - emphasis.share) * total / (total - own)
    return [w * (up if h else down) for w, h in zip(weights, has, strict=True)]


def told(done: CurationReport) -> str:
    """The report as a Markdown table."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    lines = [
        f"{done.kept:,} of {done.measured:,} clips kept",
        "",
        "| filter | drops | alone | precision | recall |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in done.filters:
        precision, recall = share(row.precision), share(row.recall)
        lines.append(f"| {row.name} | {row.dropped:,} | {row.alone:,} | {precision} | {recall} |")
    total = done.measured - done.kept
    lines.append(f"| all together | {total:,} | | {share(done.precision)} | {share(done.recall)} |")
    return "\n".join(lines)
