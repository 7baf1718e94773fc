"""Training a judge: its clips tell the truth, its loss falls, and a stopped run goes on exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from post_train.algorithms import judge_calibration
from post_train.algorithms import judge_training_clips as clips
from post_train.algorithms.judge_losses import TruthBatch, followed, own_tracks, reading_loss
from post_train.algorithms.judge_training import JudgeTask, batch_of
from post_train.algorithms.judge_training_clips import UNKNOWN, judge_clip
from post_train.algorithms.judge_training_looks import Looks, disturbed
from post_train.algorithms.judge_training_round_trips import RoundTripConfig, RoundTrips, round_trip
from post_train.checkpoint import CheckpointError
from post_train.data.diorama.asked import of_scene
from post_train.data.diorama.record import Split
from post_train.data.diorama.vocabulary import Action, Camera
from post_train.data.diorama.world import make_clip
from post_train.judge_runs import JudgeRun, measured_card
from post_train.rewards.judges import digest_of, judge_from
from post_train.rewards.judges_card import read_card
from post_train.rewards.reader import ACTIONS, CLASSES, PLACE, Maps, Reader, Tracks
from post_train.runs import load_vae, train_vae
from post_train.trainer import step_generator
from tests.post_train.run_states import assert_same_state
from tests.post_train.small_judge import small_judge
from tests.post_train.small_recipes import options, small_vae

_MIRROR = {
    Action.MOVE_LEFT: Action.MOVE_RIGHT,
    Action.HOP_LEFT: Action.HOP_RIGHT,
    Action.GROW: Action.SHRINK,
    Action.RISE: Action.FALL,
}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small VAE, hardly trained."""
    run = tmp_path_factory.mktemp("runs") / "vae"
    train_vae(small_vae(), options(run), lambda _: None)
    return run / "model"


def _scene(seed: int) -> clips.Scene:
    return make_clip(seed, side=32, num_frames=17).scene


def _rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("seed", range(12))
def test_a_true_clip_has_the_worlds_truth(seed: int) -> None:
    """Numbers and words say the same of a scene."""
    clip = make_clip(seed, side=32, num_frames=17)
    truth, asked = clips.truth_of(clip.scene), of_scene(clip.scene)
    shown = truth.tracks[:, 3].max(1) > 0
    assert int(shown.sum()) == len(asked.objects)
    for row, thing in zip(truth.objects, asked.objects, strict=False):
        assert CLASSES[row[0]] == thing.name
        assert ACTIONS[row[2]] is thing.action
        assert (row[1] == UNKNOWN) == (thing.colour is None)
    place = {name: options[i] for (name, options), i in zip(PLACE.items(), truth.place, strict=True)}
    assert place == {name: getattr(asked, name) for name in PLACE}


def test_played_backwards_an_action_is_mirrored() -> None:
    """Left becomes right, growth shrinking, a rise a fall; the camera turns round; the frames are the same."""
    told = 0
    for seed in range(40):
        scene = _scene(seed)
        forward = clips._plain(_rng(), scene, 32, 17)
        backward = clips._backward(forward)
        assert np.array_equal(backward.frames, forward.frames[::-1])
        one, two = clips.truth_of(forward.scene), clips.truth_of(backward.scene)
        assert np.array_equal(one.tracks[..., ::-1], two.tracks)
        for a, b in zip(one.objects[:, 2], two.objects[:, 2], strict=True):
            if ACTIONS[a] in _MIRROR and a != UNKNOWN:
                assert ACTIONS[b] is _MIRROR[ACTIONS[a]]
                told += 1
    assert told > 10
    assert clips._BACKWARD[Camera.PAN_LEFT] is Camera.PAN_RIGHT


def test_a_frozen_clip_has_no_action_and_no_camera() -> None:
    """All frames are one, every object does nothing, the camera stands."""
    for seed in range(10):
        take = clips._frozen(_rng(), _scene(seed), 32, 17)
        truth = clips.truth_of(take.scene)
        assert (take.frames == take.frames[0]).all()
        assert all(ACTIONS[o.item()] is None for o in truth.objects[truth.tracks[:, 3, 0] > 0, 2])
        assert take.scene.camera is Camera.STATIC


def test_a_vanished_object_is_told_absent_where_the_frames_lack_it() -> None:
    """Presence is zero exactly on the frames that are those of the scene without it."""
    for seed in range(10):
        scene = _scene(seed)
        take = clips._vanish(_rng(), scene, 64, 17)
        without = clips.render(replace(scene, objects=scene.objects[1:]), 64, 17)
        same = (take.frames == without).all((1, 2, 3))
        assert np.array_equal(same, take.shown[0] == 0)
        assert same.any()


def test_changed_clips_keep_to_their_slots() -> None:
    """Every kind of change occurs, and truths always have the same shape and legal numbers."""
    for seed in range(80):
        frames, truth = judge_clip(seed, side=32, num_frames=9)
        again, _ = judge_clip(seed, side=32, num_frames=9)
        assert np.array_equal(frames, again)
        assert truth.tracks.shape == (clips.SLOTS, 4, 9)
        assert truth.objects.max() < 40
        assert truth.objects.min() >= UNKNOWN
        assert bool(np.isfinite(truth.tracks).all())
    judge_clip(3, side=32, num_frames=5)


def test_disturbances_keep_shape_and_show_the_same() -> None:
    """All at once leave uint8 frames that still look like the clip; none of them leaves it alone."""
    frames = make_clip(1, side=64).frames
    everything = Looks(blur=1, rescale=1, jpeg=1, noise=1, light=1, round_trips=0)
    nothing = Looks(blur=0, rescale=0, jpeg=0, noise=0, light=0, round_trips=0)
    for seed in range(5):
        out = disturbed(np.random.default_rng(seed), frames, everything)
        assert out.shape == frames.shape
        assert out.dtype == np.uint8
        assert 2 < np.abs(out.astype(float) - frames).mean() < 50
    assert disturbed(_rng(), frames, nothing) is frames


def test_round_trips_are_kept_under_the_vaes_hash(vae: Path, tmp_path: Path) -> None:
    """The same clips come back from disk, and another VAE finds none of them."""
    config = RoundTripConfig(first_seed=7, clips=3, side=32, num_frames=9)
    first = RoundTrips(tmp_path, load_vae(vae), config, precision="fp32")
    frames, truth = first.clip(2)
    again, same = RoundTrips(tmp_path, load_vae(vae), config, precision="fp32").clip(2)
    assert np.array_equal(frames, again)
    assert np.array_equal(truth.tracks, same.tracks)
    original, _ = judge_clip(9, side=32, num_frames=9)
    # Alone it may be rounded otherwise than among three, on some processors.
    alone = round_trip(load_vae(vae), [original])[0]
    assert np.abs(alone.astype(int) - frames).max() <= 1
    other = load_vae(vae)
    other.decoder.conv_in.weight.data += 0.01
    assert RoundTrips(tmp_path, other, config, precision="fp32").folder != first.folder


class _Oracle(Reader):
    """Says what it is told to."""

    def __init__(self, said: Maps, action: torch.Tensor, colour: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.said, self.answers = said, (action, colour)

    def forward(self, video: torch.Tensor) -> Maps:  # noqa: ARG002
        return self.said

    def attributes(self, features: torch.Tensor, tracks: Tracks) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        return self.answers


def _oracle(truth: TruthBatch, *, shift: int = 0, confuse: bool = False) -> _Oracle:
    """One who knows the truth, moved by `shift` places or with another class."""
    b, _, _, f = truth.tracks.shape
    h = w = 8
    heat = torch.full((b, f, h, w), -12.0)
    classes = torch.zeros(b, f, h, w, len(CLASSES))
    box = torch.zeros(b, f, h, w, 3)
    for i, j, k in torch.nonzero(truth.tracks[:, :, 3] > 0).tolist():
        x, y, size, _ = truth.tracks[i, j, :, k].tolist()
        column, row = int(x * w), int(y * h)
        heat[i, k, row, min(w - 1, column + shift)] = 12
        classes[i, k, :, :, (int(truth.objects[i, j, 0]) + confuse) % 40] = 15
        rows, columns = torch.arange(h)[:, None] + 0.5, torch.arange(w) + 0.5
        box[i, k] = torch.stack(
            [(x * w - columns).expand(h, w), (y * h - rows).expand(h, w), torch.full((h, w), np.log(size * w))], -1
        )
    place = {
        name: 20.0 * torch.nn.functional.one_hot(truth.place[:, i], len(options)).float()
        for i, (name, options) in enumerate(PLACE.items())
    }
    said = Maps(heat=heat, classes=classes, box=box, features=torch.zeros(b, f, h, w, 1), place=place)
    action = 20.0 * torch.nn.functional.one_hot(truth.objects[..., 2].clamp(min=0), 12).float()
    colour = 20.0 * torch.nn.functional.one_hot(truth.objects[..., 1].clamp(min=0), 8).float()
    return _Oracle(said, action, colour)


def _oracle_loss(truth: TruthBatch, **changes: int) -> float:
    b, s, _, f = truth.tracks.shape
    video, noise = torch.zeros(b, 3, f, 32, 32), torch.zeros(b, s, 5, f)
    return float(reading_loss(_oracle(truth, **changes), video, truth, noise)[0])


def _singles() -> TruthBatch:
    found = [c for c in (make_clip(s, side=32, num_frames=9) for s in range(20)) if len(c.scene.objects) == 1]
    return batch_of([(c.frames, clips.truth_of(c.scene)) for c in found[:6]])[1]


def test_who_knows_the_truth_loses_nothing() -> None:
    """The loss of perfect maps is nearly zero; moved by a place or with another class it is not."""
    truth = _singles()
    assert _oracle_loss(truth) < 0.05
    assert _oracle_loss(truth, shift=1) > 1
    assert _oracle_loss(truth, confuse=True) > 1


def test_a_reader_is_taught_to_follow_what_it_says_itself() -> None:
    """Perfect boxes give the true tracks; of objects, those that the draw picks have the reader's own, in training."""
    truth = _singles()
    maps = _oracle(truth).said
    own, shown = own_tracks(maps, truth), truth.tracks[:, :, 3] > 0
    for i, name in enumerate(("x", "y", "size")):
        assert torch.allclose(getattr(own, name)[shown], truth.tracks[:, :, i][shown], atol=1e-4)
    halved = replace(maps, box=maps.box - torch.tensor([0.0, 0.0, float(np.log(2))], dtype=torch.float32))
    noise = torch.zeros(*truth.tracks.shape[:2], 5, truth.tracks.shape[3])
    sizes = [
        followed(halved, truth, noise + torch.tensor([0, 0, 0, 0, v], dtype=torch.float32)[:, None]).size[shown]
        for v in (0.0, 1.0)
    ]
    true = truth.tracks[:, :, 2][shown]
    assert torch.allclose(sizes[0], true / 2, rtol=1e-3)
    assert torch.allclose(sizes[1], true)


def test_confidence_becomes_a_frequency() -> None:
    """Verdicts that are right by a known law of their confidence are fitted by that law."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 4000)
    there = rng.random(4000) < 1 / (1 + np.exp(-(logit / 0.5 + 1)))
    verdicts = [(float(1 / (1 + np.exp(-v))), bool(t)) for v, t in zip(logit, there, strict=True)]
    scale, shift = judge_calibration._line(verdicts)
    assert scale == pytest.approx(0.5, rel=0.15)
    assert shift == pytest.approx(1, abs=0.3)
    assert judge_calibration._line(verdicts[:3]) == (1, 0)


def test_a_tiny_reader_learns() -> None:
    """Thirty steps on the same few clips bring the loss down by a third."""
    recipe = small_judge()
    config = replace(recipe.judge, shapes=recipe.judge.shapes[:1], batch=8)
    torch.manual_seed(0)
    task = JudgeTask(config, None, precision="fp32")
    optimizer = task.optimizer(1e-2)
    losses = []
    for _ in range(30):
        loss, _ = task.loss(1, step_generator(0, 1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.67 * losses[0]


def test_a_stopped_run_goes_on_exactly_and_ends_in_a_judge(vae: Path, tmp_path: Path) -> None:
    """Eight steps at once and four plus four give the same weights; the judge of the run reads films and has a card."""
    whole = JudgeRun(small_judge(), options(tmp_path / "whole" / "run"), vae=vae)
    whole.train(lambda _: None)
    first = JudgeRun(small_judge(), options(tmp_path / "parts" / "run"), vae=vae)
    first.trainer.train(until=4, report=lambda _: None)
    second = JudgeRun(small_judge(), options(tmp_path / "parts" / "run"), vae=vae)
    second.train(lambda _: None)
    assert_same_state(tmp_path / "whole" / "run", tmp_path / "parts" / "run")
    assert digest_of(whole.folder) == digest_of(second.folder)
    card = measured_card(whole.folder, load_vae(vae), lambda _: None, precision="fp32", clips=4)
    assert read_card(whole.folder) == card
    assert card.digest == judge_from(whole.folder).digest
    assert set(card.conditions) == {"clean", "round_trip"}
    assert card.conditions["clean"].accuracy["ground"].n == 4


def test_a_judge_begins_with_anothers_weights(vae: Path, tmp_path: Path) -> None:
    """A new run from a finished judge of its network keeps its weights and names it; another network is refused."""
    first = JudgeRun(small_judge(), options(tmp_path / "first" / "run"), vae=vae)
    first.train(lambda _: None)
    start = replace(options(tmp_path / "second" / "run"), start_from=first.folder, minutes=0)
    second = JudgeRun(small_judge(), start, vae=vae)
    second.train(lambda _: None)
    parent, child = judge_from(first.folder), judge_from(second.folder)
    assert all(torch.equal(a, b) for a, b in zip(parent.reader.parameters(), child.reader.parameters(), strict=True))
    assert child.facts.origin["parent"] == parent.digest
    assert child.facts.origin["clips_seen"] == parent.facts.origin["clips_seen"]
    wider = replace(small_judge().judge, reader=replace(small_judge().judge.reader, width=24))
    with pytest.raises(CheckpointError, match="another network"):
        JudgeRun(replace(small_judge(), judge=wider), replace(start, folder=tmp_path / "third" / "run"), vae=vae)


def test_no_judge_trains_on_the_clips_it_is_measured_on() -> None:
    """Seeds of all judges' training and held-out clips lie apart, and wild clips differ from clean ones of one seed."""
    from post_train import judge_runs
    from post_train.recipes.judges import recipe
    from post_train.rewards.roles import Role

    spans = []
    for role in Role:
        r = recipe(role)
        spans.append((r.judge.data_seed, r.judge.data_seed + (r.loop.steps + 1) * r.judge.batch))
        first = r.judge.round_trips.first_seed
        spans.append((first, first + r.judge.round_trips.clips + 128))
    spans += [(s, s + 10**6) for s in (judge_runs._CALIBRATION_SEED, judge_runs._CARD_SEED)]
    spans.sort()
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert not np.array_equal(make_clip(1, side=32).frames, make_clip(1, side=32, split=Split.WILD).frames)
