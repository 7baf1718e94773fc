"""The three trained judges by role: `load_judge(role)` reads films; its digest names weights and configuration.

Legend: B batch, F frames, H W frame size, S objects.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.whole_writes import folder_appearing_whole
from post_train.data.diorama.vocabulary import OBJECTS, Action
from post_train.rewards.judges_films import JudgeError, check_film, fitted, on_all_frames
from post_train.rewards.reader import ACTIONS, CLASSES, COLOUR_NAMES, PLACE, Reader, ReaderConfig, Tracks
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.reader_tracks import FoundObject, tracks
from post_train.rewards.reading import Reading, SeenObject
from post_train.rewards.roles import Role

WEIGHTS = Path(__file__).parent / "weights"
PRESENT = 0.5
"""The least confidence of what counts as an object: it is more likely there than not."""
_BATCH = 16

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectBelief:
    """What a judge believes of one object: probabilities by word; `there` is the probability that it is there at all.

    `actions` holds "none" for an object that does nothing plainly.
    """

    there: float
    names: dict[str, float]
    colours: dict[str, float]
    actions: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a judge read off a film, with its probabilities: `objects` in the reading's order, `doubtful` after them.

    `place` maps ground, sky, weather, camera and hills to probabilities by word (hills: "True" and "False").
    """

    reading: Reading
    objects: tuple[ObjectBelief, ...]
    doubtful: tuple[ObjectBelief, ...]
    place: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFacts:
    """What stands beside the weights: the network, the frame side it was trained at, the temperatures of its heads.

    A head's logits are divided by its temperature, fitted on held-out clips, so that its probabilities can be believed;
    `there_shift` is added to those of an object's confidence.
    """

    reader: ReaderConfig
    side: int
    temperatures: dict[str, float]
    origin: dict[str, Any]


class Judge:
    """A trained reader; `digest` hashes weights and configuration, so two judges of one digest give one reading."""

    def __init__(self, name: str, reader: Reader, facts: JudgeFacts, digest: str) -> None:
        self.name, self.facts, self.digest = name, facts, digest
        self.reader = reader.eval().requires_grad_(requires_grad=False)

    def read(self, films: Sequence[NDArray[np.uint8]]) -> list[Reading]:
        """One reading a film, uint8 [F, H, W, 3] each; JudgeError for fewer than 5 frames or another layout."""
        return [b.reading for b in self.believe(films)]

    def believe(self, films: Sequence[NDArray[np.uint8]]) -> list[Belief]:
        """Readings with their probabilities."""
        for film in films:
            check_film(film)
        ready = [fitted(film, self.facts.side) for film in films]
        beliefs: dict[int, Belief] = {}
        for group in _same_shapes(ready):
            beliefs.update(zip(group, self._batch([ready[i] for i in group]), strict=True))
        return [_on_all_frames(beliefs[i], len(film)) for i, film in enumerate(films)]

    @torch.inference_mode()
    def _batch(self, films: list[NDArray[np.uint8]]) -> list[Belief]:
        video = torch.from_numpy(np.stack(films)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        maps = self.reader(video)
        heat = maps.heat.sigmoid().numpy()
        classes = (maps.classes / self._temperature("class")).log_softmax(-1).numpy()
        box = maps.box.numpy()
        found = [
            [replace(f, confidence=self._probability(f.confidence)) for f in tracks(heat[i], classes[i], box[i])]
            for i in range(len(films))
        ]
        place = {k: (v / self._temperature(k)).softmax(-1).numpy() for k, v in maps.place.items()}
        return [
            self._belief(found[i], maps.features[i : i + 1], {k: v[i] for k, v in place.items()})
            for i in range(len(films))
        ]

    def _probability(self, confidence: float) -> float:
        """How often what is found with `confidence` is there."""
        logit = math.log(max(confidence, 1e-4) / max(1 - confidence, 1e-4))
        said = logit / self._temperature("there") + self.facts.temperatures.get("there_shift", 0.0)
        return 1 / (1 + math.exp(-said))

    def _temperature(self, head: str) -> float:
        return self.facts.temperatures.get(head, 1.0)

    def _belief(self, found: list[FoundObject], features: Tensor, place: dict[str, Floats]) -> Belief:
        seen: list[tuple[SeenObject, ObjectBelief]] = []
        if found:
            action, colour = self.reader.attributes(features, _tracks_of(found))
            actions = (action[0] / self._temperature("action")).softmax(-1).numpy()
            colours = (colour[0] / self._temperature("colour")).softmax(-1).numpy()
            seen = [_object(f, a, c) for f, a, c in zip(found, actions, colours, strict=True)]
        sure = [pair for pair in seen if pair[0].confidence >= PRESENT]
        best = {k: PLACE[k][int(v.argmax())] for k, v in place.items()}
        return Belief(
            reading=Reading(objects=tuple(s for s, _ in sure), **cast("dict[str, Any]", best)),
            objects=tuple(b for _, b in sure),
            doubtful=tuple(b for s, b in seen if s.confidence < PRESENT),
            place={k: {str(n): float(p) for n, p in zip(PLACE[k], v, strict=True)} for k, v in place.items()},
        )


def _on_all_frames(belief: Belief, num_frames: int) -> Belief:
    """The belief with tracks on every frame of a film, whether it was read or not."""
    objects = tuple(replace(o, track=on_all_frames(o.track, num_frames)) for o in belief.reading.objects)
    return replace(belief, reading=replace(belief.reading, objects=objects))


def _same_shapes(films: list[NDArray[np.uint8]]) -> list[list[int]]:
    """Indices of films of one shape, at most _BATCH of them together."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, film in enumerate(films):
        by_shape.setdefault(film.shape, []).append(index)
    return [group[i : i + _BATCH] for group in by_shape.values() for i in range(0, len(group), _BATCH)]


def _tracks_of(found: list[FoundObject]) -> Tracks:
    """What was found as the reader was taught to follow it: there or not on each frame."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(f.track, name) for f in found]))[None]

    shown = (stacked("presence") > 0).float()
    return Tracks(x=stacked("x"), y=stacked("y"), size=stacked("size"), presence=shown)


def _object(found: FoundObject, actions: Floats, colours: Floats) -> tuple[SeenObject, ObjectBelief]:
    name = CLASSES[int(found.classes.argmax())]
    action = cast("Action | None", ACTIONS[int(actions.argmax())])
    thing = SeenObject(
        name=name,
        colour=COLOUR_NAMES[int(colours.argmax())] if OBJECTS[name].coloured else None,
        action=action,
        confidence=found.confidence,
        track=found.track,
    )
    belief = ObjectBelief(
        there=found.confidence,
        names={n: float(p) for n, p in zip(CLASSES, found.classes, strict=True)},
        colours={n: float(p) for n, p in zip(COLOUR_NAMES, colours, strict=True)},
        actions={"none" if a is None else str(a): float(p) for a, p in zip(ACTIONS, actions, strict=True)},
    )
    return thing, belief


def judge_folder(role: Role) -> Path:
    """Where the shipped judge of `role` lies."""
    return WEIGHTS / role


def digest_of(folder: Path) -> str:
    """The hash of a judge's weights and configuration."""
    digest = hashlib.sha256()
    for name in ("config.json", "reader.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=4)
def load_judge(role: Role | str) -> Judge:
    """The shipped judge of `role`; JudgeError when there is none."""
    return judge_from(judge_folder(Role(role)))


def judge_from(folder: Path) -> Judge:
    """The judge in `folder`, as `save_judge` wrote it."""
    if not (folder / "config.json").is_file():
        raise JudgeError(f"{folder} holds no judge; train one with `rushes train reward --judge {folder.name}`")
    content = json.loads((folder / "config.json").read_text())
    config = content.pop("reader")
    facts = JudgeFacts(reader=ReaderConfig(**{**config, "mixing": Mixing(config["mixing"])}), **content)
    reader = Reader(facts.reader)
    reader.load_state_dict({k: v.float() for k, v in load_file(folder / "reader.safetensors").items()})
    return Judge(folder.name, reader, facts, digest_of(folder))


def save_judge(folder: Path, reader: Reader, facts: JudgeFacts) -> None:
    """Writes weights (fp16) and configuration anew; a card that lay in `folder` goes with the judge it was of.

    JudgeError when a weight does not fit fp16.
    """
    weights = {k: v.detach().half().contiguous() for k, v in reader.state_dict().items()}
    unfit = [k for k, v in weights.items() if not bool(v.isfinite().all())]
    if unfit:
        raise JudgeError(f"weight {unfit[0]} overflows fp16; train with more weight decay or a lower learning rate")
    with folder_appearing_whole(folder) as part:
        save_file(weights, part / "reader.safetensors")
        (part / "config.json").write_text(json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n")
