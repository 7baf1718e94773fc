"""A page on which a person rates pairs of films blind: one HTML file that needs nothing else, sides shuffled.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.video import write_video
from engines.whole_writes import write_whole
from post_train.keys import key_of

_TEMPLATE = Path(__file__).with_name("rating_page.html")
_SMALLEST = 256  # pixels; smaller films are enlarged before the encoder halves their colour planes
_EMBEDDED = 64 * 2**20  # bytes of film that one HTML file may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPair:
    """One item of the page: a prompt and both sides' films, uint8 [F, H, W, 3]."""

    prompt: str
    seed: int
    a: NDArray[np.uint8]
    b: NDArray[np.uint8]
    fps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedArms:
    """Who is compared; the page tells it only in the file that it writes."""

    a: dict[str, str]
    b: dict[str, str]
    prompts: str


def sides_of(count: int, shuffle_seed: int) -> list[bool]:
    """For each item whether A is on the left: half of them, in an order that the seed decides."""
    sides = np.arange(count) % 2 == 0
    np.random.default_rng(shuffle_seed).shuffle(sides)
    return sides.tolist()


def write_page(path: Path, pairs: Sequence[RatedPair], arms: RatedArms, *, shuffle_seed: int) -> None:
    """Writes the page; films too large for one file go into a folder beside it. ValueError when there is no pair."""
    if not pairs:
        raise ValueError("a page needs at least one pair of films to rate")
    a_left = sides_of(len(pairs), shuffle_seed)
    order = np.random.default_rng((shuffle_seed, 1)).permutation(len(pairs)).tolist()
    shown = [(pairs[i], a_left[i]) for i in order]
    films = [(_film(p.a if left else p.b, p.fps), _film(p.b if left else p.a, p.fps)) for p, left in shown]
    embedded = sum(len(x) + len(y) for x, y in films) <= _EMBEDDED
    items = []
    for (pair, left), (left_film, right_film) in zip(shown, films, strict=True):
        sources = [_source(path, film, embedded=embedded) for film in (left_film, right_film)]
        items.append({"prompt": pair.prompt, "seed": pair.seed, "left": "a" if left else "b", "films": sources})
    content = {"a": arms.a, "b": arms.b, "prompts": arms.prompts, "shuffle_seed": shuffle_seed, "items": items}
    content["id"] = key_of(content)[:16]
    write_whole(path, _filled(content).encode())


def _filled(content: dict[str, Any]) -> str:
    """The template with its data, in which no prompt can end the script it stands in."""
    data = json.dumps(content).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = _TEMPLATE.read_text(encoding="utf-8")
    assert page.count("@DATA@") == 1
    return page.replace("@COUNT@", html.escape(str(len(content["items"])))).replace("@DATA@", data)


def _film(frames: NDArray[np.uint8], fps: int) -> bytes:
    """An mp4 of the film, enlarged by Lanczos where it is small; nothing in it tells whose it is."""
    _, height, width, _ = frames.shape
    factor = -(-_SMALLEST // min(height, width))
    if factor > 1:
        size = (width * factor, height * factor)
        frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_LANCZOS4) for f in frames]).astype(np.uint8)
    buffer = io.BytesIO()
    write_video(frames, buffer, fps=fps)
    return buffer.getvalue()


def _source(page: Path, film: bytes, *, embedded: bool) -> str:
    """What a video element plays: the film itself, or the name of its file beside the page."""
    if embedded:
        return f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
    folder = page.with_name(f"{page.stem}_films")
    name = f"{hashlib.sha256(film).hexdigest()[:20]}.mp4"
    write_whole(folder / name, film)
    return f"{folder.name}/{name}"
