"""A user's clips: read as they are, refused by name where they cannot be trained on, and never from a stale cache."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.engine import load_engine
from engines.operators.whole_clip import encode_moments
from engines.types import VideoSpec
from engines.video import write_video
from post_train.data.clip_latents import ClipLatents, encode_frames, latents_key
from post_train.data.clips import FolderClips
from post_train.data.decoding import ClipError, decode_video, fitted
from post_train.data.diorama.record import Split
from post_train.data.diorama.world import make_clip
from post_train.data.diorama_clips import DioramaClips
from post_train.data.embeddings import PromptEmbeddings, embedding_key
from post_train.data.keyed_files import KeyedFiles
from post_train.data.lossless import write_lossless
from post_train.data.sources import open_source
from post_train.data.tar_shards import ShardClips, find_shards
from post_train.data.training_clips import TrainingClip, TrainingClips, epoch_order, prepare_clips
from post_train.distributed import ALONE
from post_train.model_parts import ModelDigests, load_encoders, model_digests
from tests.post_train.full_disk import files_of_at_most

SPEC = VideoSpec(width=32, height=32, num_frames=9, fps=8)
DIGESTS = ModelDigests(transformer="t", vae="v", text_encoder="e")


def _ramp(count: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """Frames whose grey is 10 times their number, so that a decoded one tells which it was."""
    return np.stack([np.full((height, width, 3), 10 * i, np.uint8) for i in range(count)])


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of two clips with captions."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("b", "a"):
        write_video(_ramp(9), folder / f"{name}.mp4", fps=8)
        (folder / f"{name}.txt").write_text(f" film {name}\n")
    return folder


def test_a_folder_is_read_in_the_order_of_its_names(films: Path) -> None:
    """Sidecar captions without their blanks; the digest follows the bytes, not the name."""
    clips = list(FolderClips(films))
    assert [c.caption for c in clips] == ["film a", "film b"]
    assert clips[0].digest == clips[1].digest
    write_video(_ramp(9)[::-1], films / "b.mp4", fps=8)
    assert list(FolderClips(films))[1].digest != clips[1].digest


def test_metadata_names_the_clips(films: Path) -> None:
    """Where a metadata.jsonl lies, it alone says which clips there are and what they show."""
    (films / "metadata.jsonl").write_text('{"file": "b.mp4", "caption": "told here"}\n\n')
    (clip,) = FolderClips(films)
    assert (clip.caption, Path(clip.name).name) == ("told here", "b.mp4")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda d: (d / "a.txt").unlink(), r"a\.mp4: it has no caption; write one to a\.txt"),
        (lambda d: (d / "a.txt").write_text(" \n"), r"a\.mp4: its caption is empty"),
        (lambda d: (d / "a.txt").write_bytes(b"\xff\xfe\xfa"), r"a\.txt is not UTF-8"),
        (lambda d: (d / "a.txt").write_text("a\x00b"), "NUL"),
        (lambda d: [p.unlink() for p in d.glob("*.txt")], r"2 clips: .*a\.mp4.*b\.mp4"),
        (lambda d: [p.unlink() for p in d.glob("*.mp4")], "it holds no video"),
        (lambda d: (d / "metadata.jsonl").write_text("{"), "line 1: it is not JSON"),
        (lambda d: (d / "metadata.jsonl").write_text('{"file": "a.mp4"}'), 'it must say {"file"'),
        (lambda d: (d / "metadata.jsonl").write_text('{"file": "c.mp4", "caption": "c"}'), "'c.mp4' is no file"),
        (lambda d: (d / "metadata.jsonl").write_text('{"file": "../x", "caption": "c"}'), "leads out of"),
        (lambda d: (d / "metadata.jsonl").write_text('{"file": "a.mp4", "caption": ""}'), "its caption is empty"),
        (lambda d: (d / "metadata.jsonl").write_text('{"file": "a.mp4", "caption": "c"}\n' * 2), "a second time"),
        (lambda d: (d / "metadata.jsonl").write_text(""), "it holds no video"),
    ],
)
def test_a_broken_folder_is_told(films: Path, break_it: Callable[[Path], object], sentence: str) -> None:
    """Before any video is read, each mistake is named with its file."""
    break_it(films)
    with pytest.raises(ClipError, match=sentence):
        FolderClips(films)


def test_frames_are_taken_by_the_clock(tmp_path: Path) -> None:
    """At half the rate every second frame is taken, at twice the rate each comes twice, whatever follows is left."""
    write_lossless(_ramp(17), tmp_path / "x.mkv", fps=8)
    frames = decode_video(tmp_path / "x.mkv", replace(SPEC, fps=4), name="x")
    assert frames[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100, 120, 140, 160]
    frames = decode_video(tmp_path / "x.mkv", replace(SPEC, fps=16), name="x")
    assert frames[:, 0, 0, 0].tolist() == [0, 0, 10, 10, 20, 20, 30, 30, 40]
    frames = decode_video((tmp_path / "x.mkv").read_bytes(), replace(SPEC, num_frames=17), name="x")
    assert np.array_equal(frames, _ramp(17))


def test_a_picture_is_covered_and_cropped_at_its_centre() -> None:
    """A wide picture loses its sides, a tall one top and bottom; the right size is left alone."""
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 255
    assert fitted(wide, width=16, height=16).min() == 255
    assert np.array_equal(fitted(wide.transpose(1, 0, 2), width=16, height=16), np.full((16, 16, 3), 255))
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert np.array_equal(fitted(noise, width=32, height=32), noise)
    assert fitted(noise, width=48, height=16).shape == (16, 48, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: write_lossless(_ramp(5), p, fps=8), "too short: 0.62 s in 5 frames, and 9 frames at 8 a second"),
        (lambda p: p.write_bytes(b"no video at all"), "cannot be decoded"),
        (lambda p: p.write_bytes(b""), "cannot be decoded"),
    ],
)
def test_a_clip_that_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], object], sentence: str) -> None:
    """Too short, not a video, empty: the error names the clip."""
    make(tmp_path / "x.mkv")
    with pytest.raises(ClipError, match=rf"^x: .*{sentence}"):
        decode_video(tmp_path / "x.mkv", SPEC, name="x")


def _shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    """The bytes of a lossless film of nine frames."""
    write_lossless(_ramp(9), tmp_path / "film.mkv", fps=8)
    return (tmp_path / "film.mkv").read_bytes()


def test_a_webdataset_is_read_shard_by_shard(tmp_path: Path, video: bytes) -> None:
    """Captions from txt and json, in order, by folder and by pattern; frames are the film's own."""
    (tmp_path / "shards").mkdir()
    _shard(tmp_path / "shards" / "x-000.tar", {"a.mkv": video, "a.txt": b"film a"})
    _shard(
        tmp_path / "shards" / "x-001.tar",
        {"b.mkv": video, "b.json": b'{"caption": "film b"}', "c.mkv": video, "c.txt": b"c"},
    )
    for name in (tmp_path / "shards", tmp_path / "shards" / "x-{000..001}.tar"):
        clips = list(open_source(str(name), num_frames=9, split=Split.WILD, first_seed=0, clips=1))
        assert [c.caption for c in clips] == ["film a", "film b", "c"]
        assert np.array_equal(clips[2].frames(SPEC), _ramp(9))


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"a.mkv": b"x"}, "a: it has no caption"),
        ({"a.txt": b"x"}, "it has 0 videos"),
        ({"a.mkv": b"x", "a.mp4": b"x", "a.txt": b"x"}, "it has 2 videos"),
        ({"a.mkv": b"x", "a.txt": b""}, "its caption is empty"),
        ({"a.mkv": b"x", "a.json": b"{}"}, 'its json has no "caption"'),
        ({"a.mkv": b"x", "a.json": b"{"}, "its caption cannot be read"),
        ({}, "no sample"),
    ],
)
def test_a_broken_shard_is_told(tmp_path: Path, members: dict[str, bytes], sentence: str) -> None:
    """The error names shard and key."""
    shard = _shard(tmp_path / "x.tar", members)
    with pytest.raises(ClipError, match=sentence):
        list(ShardClips([shard]))


def test_a_shard_that_breaks_off_is_no_shorter_shard(tmp_path: Path, video: bytes) -> None:
    """Half a tar file is an error; what is no file is not opened, least of all run."""
    shard = _shard(tmp_path / "x.tar", {"a.mkv": video, "a.txt": b"a", "b.mkv": video, "b.txt": b"b"})
    whole = shard.read_bytes()
    for length in (0, 100, 512 + len(video) // 2, len(video) * 3 // 2, len(video) * 2):
        shard.write_bytes(whole[:length])
        with pytest.raises(ClipError, match="not a whole tar file"):
            list(ShardClips([shard]))
    for name in ("pipe:touch ran", str(tmp_path / "y-{0..3}.tar")):
        with pytest.raises(ClipError, match="is not there"):
            find_shards(name)


def test_what_is_no_data_is_told(tmp_path: Path) -> None:
    """A name that leads nowhere gets the list of what could be named; an empty folder too."""
    for name in ("nowhere", str(tmp_path / "x.mp4")):
        with pytest.raises(ClipError, match="name a folder of videos"):
            open_source(name, num_frames=9, split=Split.WILD, first_seed=0, clips=1)
    with pytest.raises(ClipError, match="no list of curated seeds"):
        open_source(str(tmp_path / "x.json"), num_frames=9, split=Split.WILD, first_seed=0, clips=1)
    with pytest.raises(ClipError, match="at least one clip"):
        DioramaClips([], Split.WILD, num_frames=9)


def test_the_world_is_a_source() -> None:
    """Seeds give the world's frames and its full and short captions; another shape or length is refused."""
    (clip,) = DioramaClips([7], Split.WILD, num_frames=9)
    wanted = make_clip(7, side=32, num_frames=9, split=Split.WILD)
    assert (clip.caption, clip.others) == (wanted.captions.full.text, (wanted.captions.short.text,))
    assert np.array_equal(clip.frames(SPEC), wanted.frames)
    for spec in (replace(SPEC, width=64), replace(SPEC, num_frames=13)):
        with pytest.raises(ClipError, match="asked for"):
            clip.frames(spec)


@pytest.mark.parametrize("field", ["width", "height", "num_frames", "fps"])
def test_another_geometry_is_another_key(field: str) -> None:
    """Each figure of the size is in the key of latents."""
    before = latents_key("clip", SPEC, DIGESTS)
    assert latents_key("clip", replace(SPEC, **{field: 64}), DIGESTS) != before


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_another_model_is_another_key(part: str) -> None:
    """Each part's digest is in the key, and so are the clip's content and the code's version."""
    before = latents_key("clip", SPEC, DIGESTS)
    assert latents_key("clip", SPEC, replace(DIGESTS, **{part: "other"})) != before
    assert latents_key("other clip", SPEC, DIGESTS) != before
    assert latents_key("clip", SPEC, DIGESTS, code=10**6) != before
    assert latents_key("clip", SPEC, DIGESTS) == before


def test_another_prompt_encoder_or_code_is_another_embedding() -> None:
    """An embedding is kept under prompt, encoder and code, and never under a key of latents."""
    keys = {
        embedding_key("a", text_encoder="e"),
        embedding_key("b", text_encoder="e"),
        embedding_key("a", text_encoder="f"),
        embedding_key("a", text_encoder="e", code=10**6),
        latents_key("a", SPEC, DIGESTS),
    }
    assert len(keys) == 5


def test_digests_follow_the_weights(make_tiny_wan: Callable[[int], Path]) -> None:
    """Other weights of one part change that part's digest; a change of the tokenizer counts as the encoder's."""
    model = make_tiny_wan(0)
    before = model_digests(model)
    assert model_digests(model) == before
    weights = next((model / "vae").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert model_digests(model).vae != before.vae
    tokenizer = model / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    after = model_digests(model)
    assert after.text_encoder != before.text_encoder
    assert after.transformer == before.transformer
    assert after.whole != before.whole


def test_what_is_cached_is_what_serving_computes(tiny_wan: Path, films: Path, tmp_path: Path) -> None:
    """Embeddings equal the engine's own to the bit, latents the VAE's to fp16; a second preparation encodes nothing."""
    wan = load_encoders(tiny_wan, torch.device("cpu"))
    digests = model_digests(tiny_wan)
    latents, embeddings = ClipLatents(tmp_path, digests), PromptEmbeddings(tmp_path, text_encoder=digests.text_encoder)
    said: list[str] = []
    for _ in range(2):
        clips = prepare_clips(
            FolderClips(films),
            SPEC,
            latents=latents,
            embeddings=embeddings,
            family=lambda: wan,
            seed=1,
            ranks=ALONE,
            report=said.append,
        )
    assert [line.split("; ")[1] for line in said] == [f"{n} were encoded now, the others were on disk" for n in (2, 0)]
    served = load_engine(tiny_wan)._family.encode(["film a"])
    assert torch.equal(embeddings.read("film a"), served.embeds[0, : served.lengths[0]])
    assert len(embeddings.read("")) >= 1
    frames = next(iter(FolderClips(films))).frames(SPEC)
    video = torch.from_numpy(frames).permute(3, 0, 1, 2).float()[None] / 127.5 - 1
    assert torch.allclose(
        latents.read(clips.clips[0].latents).float(), encode_moments(wan.parts.vae, video)[0][0], atol=2e-3
    )


def test_a_large_clip_is_encoded_in_chunks_to_the_same(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' chunked encoding, used where one pass would not fit, gives the same latents to fp16."""
    wan = load_encoders(tiny_wan, torch.device("cpu"))
    frames = make_clip(1, side=32, num_frames=9).frames
    at_once = encode_frames(wan.parts.vae, frames, wan.device)
    monkeypatch.setattr("post_train.data.clip_latents._ONE_PASS_PIXELS", 1)
    assert torch.allclose(encode_frames(wan.parts.vae, frames, wan.device).float(), at_once.float(), atol=2e-3)


def test_half_a_file_is_never_read(tmp_path: Path) -> None:
    """A full disk leaves nothing behind; a file that is damaged later is told with what to do."""
    files = KeyedFiles(tmp_path)
    with files_of_at_most(4096), pytest.raises(OSError, match="cannot be written"):
        files.write("ab", {"x": torch.ones(10_000)})
    assert "ab" not in files
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    files.write("ab", {"x": torch.ones(3)})
    files.path("ab").write_bytes(files.path("ab").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"is damaged .* delete it"):
        files.read("ab")


def test_an_epoch_shows_every_clip_as_often_as_it_weighs() -> None:
    """Equal weights: each once, shuffled; unequal ones: within one of the expected count; the same for one seed."""
    draw = torch.Generator().manual_seed
    assert sorted(epoch_order([0.3] * 1000, draw(3))) == list(range(1000))
    assert epoch_order([1.0] * 50, draw(1)) != epoch_order([1.0] * 50, draw(2))
    counts = np.bincount(epoch_order([3.0, 1.0, 0.1, 3.9], draw(5)), minlength=4)
    expected = np.array([3.0, 1.0, 0.1, 3.9]) / 8 * 4
    assert counts.sum() == 4
    assert np.abs(counts - expected).max() < 1
    assert epoch_order([2.0], draw(0)) == [0]


def test_steps_follow_one_another_through_the_epochs(films: Path) -> None:
    """Two steps of three see each of two clips three times in all, and step n is the same whenever it is asked for."""
    clips = TrainingClips(
        tuple(TrainingClip(latents=str(i), caption="c", others=(), weight=1.0) for i in range(2)), seed=4
    )
    rows = clips.rows(1, 3) + clips.rows(2, 3)
    assert sorted(rows) == [0, 0, 0, 1, 1, 1]
    assert clips.rows(2, 3) == rows[3:]
    heavier = TrainingClips((replace(clips.clips[0], weight=2.0), clips.clips[1]), seed=4)
    assert heavier.key != clips.key
    with pytest.raises(ValueError, match="weight of zero"):
        TrainingClips((replace(clips.clips[0], weight=0.0),), seed=4)
    assert json.dumps(FolderClips(films).describe())
