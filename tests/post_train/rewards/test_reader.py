"""The reader network: any size, any length, all three architectures."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from post_train.rewards.reader import CLASSES, PLACE, Maps, Reader, ReaderConfig, Tracks
from post_train.rewards.reader_blocks import Mixing, neighbours

SHAPES = [(17, 64, 64), (5, 32, 48), (9, 40, 64), (33, 32, 32)]


def _reader(mixing: Mixing) -> Reader:
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(mixing=mixing, fine=8, width=16, depth=2, heads=2, fine_blocks=1, change_reach=1))
    # Blocks begin as the identity; noise brings their insides to light.
    for p in reader.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return reader.eval()


@pytest.mark.parametrize("mixing", Mixing)
@pytest.mark.parametrize(("frames", "height", "width"), SHAPES)
def test_any_size_and_length(mixing: Mixing, frames: int, height: int, width: int) -> None:
    """Maps of stride 4 for sizes that are multiples of 8 and five frames or more, and attributes along any tracks."""
    reader = _reader(mixing)
    with torch.inference_mode():
        maps = reader(torch.randn(2, 3, frames, height, width))
        flat = torch.full((2, 3, frames), 0.5)
        action, colour = reader.attributes(maps.features, Tracks(x=flat, y=flat, size=flat, presence=0 * flat))
    assert maps.heat.shape == (2, frames, height // 4, width // 4)
    assert maps.classes.shape == (2, frames, height // 4, width // 4, len(CLASSES))
    assert maps.box.shape[-1] == 3
    assert {k: v.shape for k, v in maps.place.items()} == {k: (2, len(v)) for k, v in PLACE.items()}
    assert action.shape == (2, 3, 12)
    assert colour.shape == (2, 3, 8)
    assert all(bool(t.isfinite().all()) for t in (maps.heat, maps.classes, maps.box, action, colour))


@pytest.mark.parametrize("mixing", Mixing)
def test_films_of_a_batch_do_not_touch_each_other(mixing: Mixing) -> None:
    """A film is read the same alone and in company."""
    reader, films = _reader(mixing), torch.randn(2, 3, 9, 32, 32)
    with torch.inference_mode():
        both, alone = reader(films), reader(films[1:])
    assert torch.allclose(both.heat[1:], alone.heat, atol=1e-4)
    assert torch.allclose(both.place["camera"][1:], alone.place["camera"], atol=1e-4)


@pytest.mark.parametrize("mixing", Mixing)
def test_every_architecture_looks_across_frames(mixing: Mixing) -> None:
    """What happens on one frame is known on the next, so that motion can be read."""
    reader, film = _reader(mixing), torch.randn(1, 3, 9, 32, 32)
    other = film.clone()
    other[:, :, 4] += 1
    with torch.inference_mode():
        change = (reader(film).heat - reader(other).heat).abs().flatten(2).amax(-1)[0]
    assert float(change[5]) > 1e-5
    assert float(change[3]) > 1e-5


def test_neighbouring_frames_repeat_at_the_ends() -> None:
    """Each frame between those before and after it."""
    x = torch.arange(4.0)[None, :, None]
    assert neighbours(x)[0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert neighbours(x, 2)[0, 0].tolist() == [0, 0, 2]


def test_attributes_are_read_where_the_track_is() -> None:
    """Changing a film far from a track does not change the colour that is read along it."""
    reader = _reader(Mixing.SHIFT)
    features = F.normalize(torch.randn(1, 9, 16, 16, 8), dim=-1)
    changed = features.clone()
    changed[:, :, :4] = 5
    at = {name: torch.full((1, 1, 9), value) for name, value in (("x", 0.5), ("y", 0.8), ("size", 0.2))}
    tracks = Tracks(**at, presence=torch.ones(1, 1, 9))
    with torch.inference_mode():
        one, two = reader.attributes(features, tracks), reader.attributes(changed, tracks)
    assert torch.allclose(one[0], two[0], atol=1e-5)
    assert torch.allclose(one[1], two[1], atol=1e-5)


def test_maps_are_fp32_under_autocast() -> None:
    """Probabilities are computed in full precision however the network is run."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps: Maps = _reader(Mixing.CONVOLUTION)(torch.randn(1, 3, 5, 32, 32))
    assert maps.heat.dtype == maps.classes.dtype == maps.box.dtype == torch.float32


@pytest.mark.parametrize("mixing", Mixing)
def test_a_slow_pan_is_seen_before_pixels_are_gathered(mixing: Mixing) -> None:
    """Scenery that moves by a pixel a frame changes the very first features against the same that stands still."""
    reader = _reader(mixing)
    wide = F.avg_pool2d(torch.randn(1, 3, 32, 48), 5, stride=1, padding=2)
    still = torch.stack([wide[..., 8:40]] * 9, 2)
    panned = torch.stack([wide[..., 4 + i : 36 + i] for i in range(9)], 2)
    seen: list[torch.Tensor] = []
    reader.stem.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    with torch.inference_mode():
        reader(still), reader(panned)
    assert float(seen[0][:, 12:].abs().max()) == 0
    assert float(seen[1][4, 12:].abs().mean()) > 0.05
