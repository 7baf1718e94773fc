"""What is really wrong with a wild clip, for reports on curation alone: no filter and no weight may read it.

Shaking and compression leave no record in a clip, so its random numbers are run again over pictures made to show them.
"""

from __future__ import annotations

import copy

import numpy as np

from post_train.data.diorama.captions import captions_of
from post_train.data.diorama.compose import compose
from post_train.data.diorama.observe import inside_frame
from post_train.data.diorama.record import Scene, Split
from post_train.data.diorama.wild import weather_the_web
from post_train.data.diorama.world import VERSION

_SIDE = 64
_FLAT = (200, 50, 20)  # a colour whose chroma no JPEG of these qualities keeps exactly
_MOVED = 0.6  # grey levels: how much brighter half a frame gets when its edge moves by a sixth of a pixel


def wild_generator(seed: int, num_frames: int) -> tuple[Scene, np.random.Generator, tuple[str, ...]]:
    """A wild clip's scene, its random numbers as they are when the web's weather begins, and its caption's faults.

    Follows `make_clip` step for step; a test holds it to that.
    """
    rng = np.random.default_rng((VERSION, seed, 1))
    scene = compose(rng, num_frames, Split.WILD)
    faults = captions_of(rng, scene, careless=True).full.faults
    return scene, rng, faults


def wild_faults(seed: int, num_frames: int) -> dict[str, bool]:
    """What is wrong with the wild clip of `seed`, under the names of curation's filters."""
    scene, rng, faults = wild_generator(seed, num_frames)
    # A moving camera that is not told of makes a caption incomplete and contradicts nothing; an object, both.
    return {
        "caption disagrees": bool(set(faults) - {"camera"}),
        "caption incomplete": bool(set(faults) & {"count", "camera"}),
        "shaken": _is_shaken(rng, num_frames),
        "compressed": _is_compressed(rng, num_frames),
        "cut off": not all(inside_frame(thing.track, 0.0) for thing in scene.objects),
    }


def _is_shaken(rng: np.random.Generator, num_frames: int) -> bool:
    """Whether an edge in the middle of a picture moves: the frames' brightness tells, which compression leaves."""
    edge = np.zeros((num_frames, _SIDE, _SIDE, 3), np.uint8)
    edge[:, :, _SIDE // 2 :] = 255
    seen = weather_the_web(copy.deepcopy(rng), edge).astype(np.float64).mean((1, 2, 3))
    return bool(np.abs(seen - edge.mean()).max() > _MOVED)


def _is_compressed(rng: np.random.Generator, num_frames: int) -> bool:
    """Whether a plain colour changes, which shaking leaves."""
    flat = np.full((num_frames, _SIDE, _SIDE, 3), _FLAT, np.uint8)
    return not np.array_equal(weather_the_web(copy.deepcopy(rng), flat), flat)
