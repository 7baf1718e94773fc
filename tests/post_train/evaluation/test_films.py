"""Films are made once, kept to the last bit, and never read under facts that no longer hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import load_engine
from engines.types import GenerationResult
from post_train.evaluation.arms import find_arm
from post_train.evaluation.films import Ask, FilmCabinet, asks_of
from post_train.evaluation.prompts import Prompt, PromptKind

ASKS = [Ask(prompt="a red ball", seed=s) for s in range(3)]


def _silent(_done: int, _total: int) -> None:
    pass


def test_a_kept_film_is_the_engines_own(tiny_wan: Path, tmp_path: Path) -> None:
    """What is read back is bit for bit what the serving engine makes by the card's defaults, with its cost."""
    cabinet = FilmCabinet(find_arm(str(tiny_wan)), tmp_path)
    cabinet.fill(ASKS, _silent)
    kept = list(cabinet.films(ASKS))
    engine = load_engine(tiny_wan, pad_batch_to=8)
    made = [
        e for e in engine.generate([cabinet._request(a, str(a.seed)) for a in ASKS]) if isinstance(e, GenerationResult)
    ]
    for film, result in zip(kept, made, strict=True):
        assert np.array_equal(film.frames, result.frames)
        assert film.frames.shape == (9, 32, 32, 3)
        assert (film.nfe, film.fps) == (8, 8)
        assert film.seconds > 0
    assert not np.array_equal(kept[0].frames, kept[1].frames)


def test_a_film_hangs_on_everything_that_decides_it(make_tiny_wan: Callable[[int], Path], tmp_path: Path) -> None:
    """Another weight, step count, guidance, shift, sampler, size, prompt or seed is another film; a readme is not."""
    folder = make_tiny_wan(0)

    def key(ask: Ask = ASKS[0]) -> str:
        return FilmCabinet(find_arm(str(folder)), tmp_path).key(ask)

    first = key()
    (folder / "README.md").write_text("words", encoding="utf-8")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert key() == first
    seen = {first, key(ASKS[1]), key(Ask(prompt="a blue ball", seed=0))}
    card = json.loads((folder / "rushes.json").read_text())
    changes = {"num_inference_steps": 5, "guidance_scale": 3.5, "flow_shift": 4.0, "sampler": "euler", "width": 48}
    for name, value in {**changes, "negative_prompt": "blur"}.items():
        changed = {**card, "defaults": {**card["defaults"], name: value}}
        (folder / "rushes.json").write_text(json.dumps(changed), encoding="utf-8")
        seen.add(key())
    (folder / "rushes.json").write_text(json.dumps(card), encoding="utf-8")
    weights = next((folder / "vae").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    seen.add(key())
    assert len(seen) == 3 + len(changes) + 2


def test_what_was_killed_goes_on_where_it_was(tiny_wan: Path, tmp_path: Path) -> None:
    """A process killed between two batches leaves whole films only, and the next one makes the rest."""
    code = f"""
import os, signal
from pathlib import Path
from post_train.evaluation.arms import find_arm
from post_train.evaluation.films import Ask, FilmCabinet
def die_in_the_middle(done, total):
    if done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
cabinet = FilmCabinet(find_arm({str(tiny_wan)!r}), Path({str(tmp_path)!r}))
cabinet.fill([Ask(prompt="a red ball", seed=s) for s in range(12)], die_in_the_middle)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    cabinet = FilmCabinet(find_arm(str(tiny_wan)), tmp_path)
    asks = [Ask(prompt="a red ball", seed=s) for s in range(12)]
    assert len(cabinet.missing(asks)) == 4
    counts: list[tuple[int, int]] = []
    cabinet.fill(asks, lambda done, total: counts.append((done, total)))
    assert counts == [(8, 12), (12, 12)]
    assert len(list(cabinet.films(asks))) == 12
    assert not list(tmp_path.rglob("*.part*"))


def test_a_film_is_the_same_whoever_shares_its_batch(tiny_wan: Path, tmp_path: Path) -> None:
    """A resumed evaluation has other batches and must have the same films."""
    alone, together = (FilmCabinet(find_arm(str(tiny_wan)), tmp_path / name) for name in ("alone", "together"))
    alone.fill(ASKS[:1], _silent)
    together.fill(ASKS, _silent)
    assert np.array_equal(next(alone.films(ASKS[:1])).frames, next(together.films(ASKS[:1])).frames)


def test_a_damaged_film_is_named(tiny_wan: Path, tmp_path: Path) -> None:
    """Half a file is an error with its path, never another film."""
    cabinet = FilmCabinet(find_arm(str(tiny_wan)), tmp_path)
    cabinet.fill(ASKS[:1], _silent)
    path = next(tmp_path.rglob("*.png"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"\.png is damaged .*; delete it and run again"):
        next(cabinet.films(ASKS[:1]))


def test_seeds_hang_on_the_clip_or_the_text_alone() -> None:
    """A caption and its paraphrase start from one noise; the order of a file changes no film."""
    full = Prompt(text="a red ball", kind=PromptKind.FAMILIAR, clip=5)
    told = Prompt(text="a crimson sphere", kind=PromptKind.PARAPHRASE, clip=5)
    other = Prompt(text="a red ball", kind=PromptKind.FAMILIAR, clip=6)
    typed = Prompt(text="a red ball", kind=PromptKind.TYPED)
    assert [a.seed for a in asks_of(full, 2)] == [a.seed for a in asks_of(told, 2)]
    assert asks_of(full, 1) == asks_of(full, 2)[:1]
    assert len({asks_of(p, 1)[0].seed for p in (full, other, typed)}) == 3
