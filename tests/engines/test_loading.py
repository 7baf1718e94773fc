"""What is loaded is what was saved, and what could run code or was tampered with is refused before it is read."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import load_engine
from engines.backends import BACKENDS, BackendEntry
from engines.errors import EngineError, InvalidModel, MissingExtra, UnknownName
from engines.families.wan import clean_prompt
from tests.engines.making import films, request

COMPONENTS = ("transformer", "vae", "text_encoder")


@pytest.fixture
def folder(tiny_wan: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to break."""
    return Path(shutil.copytree(tiny_wan, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_of(component: Path) -> Path:
    (path,) = component.glob("*.safetensors")
    return path


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.target, "exploded")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".pth", ".pkl"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_pickle_checkpoint_is_refused_by_name(folder: Path, component: str, suffix: str) -> None:
    """A folder that holds its weights as a pickle is refused, the file named, and the pickle never opened."""
    exploded = folder.parent / "exploded"
    weights = weights_of(folder / component)
    name = weights.with_suffix(suffix).name
    (folder / component / name).write_bytes(pickle.dumps(Bomb(exploded)))
    weights.unlink()
    with pytest.raises(InvalidModel, match=f"{component}/{name} is a pickle checkpoint"):
        load_engine(folder)
    assert not exploded.exists()


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95" + b"x" * 100, b"PK\x03\x04" + b"\x00" * 200])
def test_a_pickle_under_a_safe_name_is_refused(folder: Path, component: str, content: bytes) -> None:
    """A pickle, a zip or nothing at all, renamed to .safetensors, is not taken for one."""
    weights_of(folder / component).write_bytes(content)
    with pytest.raises(InvalidModel, match="is not a safetensors file"):
        load_engine(folder)


@pytest.mark.parametrize("header", [b"[1, 2]", b"not json", b"{" * 5000, b"\xff\xfe"])
def test_a_broken_header_is_refused(folder: Path, header: bytes) -> None:
    """A length that fits but a header that is no JSON object is one clear sentence, not a parser's trace."""
    weights_of(folder / "vae").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InvalidModel, match="is not a safetensors file"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("transformer/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("vae/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("text_encoder/config.json", {"_attn_implementation_internal": "someone/kernel"}),
        ("text_encoder/config.json", {"sub": [{"auto_map": {"AutoModel": "evil.Model"}}]}),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "any"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("model_index.json", {"trust_remote_code": True}),
    ],
)
def test_a_config_that_points_at_code_is_refused(folder: Path, file: str, changes: dict[str, Any]) -> None:
    """auto_map and its relatives, however deep, are refused by key and file."""
    edit(folder / file, **changes)
    with pytest.raises(InvalidModel, match=r"can make a loader run code"):
        load_engine(folder)


def test_tensors_missing_surplus_or_bent_are_refused(folder: Path) -> None:
    """A checkpoint that does not fit its config would be filled at random; it is refused instead."""
    path = weights_of(folder / "transformer")
    tensors = load_file(path)
    name = "blocks.1.attn1.to_q.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(InvalidModel, match=f"lacks 1 of .* '{name}'"):
        load_engine(folder)
    save_file(tensors | {"lora.weight": torch.zeros(1)}, path)
    with pytest.raises(InvalidModel, match=r"'lora\.weight'"):
        load_engine(folder)
    save_file(tensors | {name: torch.zeros(24, 25)}, path)
    with pytest.raises(InvalidModel, match=r"is \[24, 25\], and by its config \[24, 24\]"):
        load_engine(folder)


def test_a_text_encoder_with_holes_is_refused(folder: Path) -> None:
    """The text encoder, which another library loads, may not have weights left to chance either."""
    path = weights_of(folder / "text_encoder")
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith("SelfAttention.q.weight"))
    save_file({key: value for key, value in tensors.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(InvalidModel, match="text_encoder lacks 1 tensors"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "no folder vae"),
        (lambda folder: weights_of(folder / "vae").unlink(), "vae holds no .safetensors"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer/tokenizer.json describes nothing"),
        (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json"),
        (lambda folder: (folder / "vae/config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "vae/config.json").write_text("[]"), "must hold a JSON object"),
        (lambda folder: edit(folder / "vae/config.json", _class_name="AutoencoderKL"), "'AutoencoderKL'"),
        (lambda folder: edit(folder / "text_encoder/config.json", architectures=["LlamaModel"]), "LlamaModel"),
        (lambda folder: edit(folder / "text_encoder/config.json", architectures=7), "text_encoder is 7"),
        (lambda folder: edit(folder / "text_encoder/config.json", model_type=[]), "text_encoder is"),
        (lambda folder: edit(folder / "text_encoder/config.json", num_heads=-1), "text_encoder/config.json describes"),
        (lambda folder: edit(folder / "text_encoder/config.json", d_ff="x"), "text_encoder/config.json describes"),
        (lambda folder: edit(folder / "transformer/config.json", num_layers="x"), "transformer/config.json describes"),
        (lambda folder: edit(folder / "transformer/config.json", num_attention_heads="x"), "transformer/config.json"),
        (
            lambda folder: edit(folder / "text_encoder/config.json", d_ff=38),
            r"is \[37, 32\], and by its config \[38, 32",
        ),
        (lambda folder: edit(folder / "vae/config.json", num_res_blocks=-1), "vae lacks 8 of 68 tensors"),
        (lambda folder: edit(folder / "vae/config.json", dim_mult=[]), "vae/config.json describes nothing"),
        (lambda folder: edit(folder / "vae/config.json", z_dim=48), "latents_mean must be 48 numbers"),
        (lambda folder: edit(folder / "vae/config.json", latents_std=[1.0]), "latents_std must be 16 numbers"),
        (lambda folder: edit(folder / "model_index.json", transformer_2=-1), "boundary_ratio None"),
        (lambda folder: edit(folder / "tokenizer/tokenizer_config.json", eos_token=3), "tokenizer.json describes"),
        (lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{}"), "tokenizer.json describes"),
        (lambda folder: edit(folder / "model_index.json", transformer_2=["diffusers", "X"]), "boundary_ratio None"),
    ],
)
def test_an_incomplete_folder_is_one_sentence(folder: Path, breakage: Callable[[Path], object], said: str) -> None:
    """Whatever is missing or of another kind is named."""
    breakage(folder)
    with pytest.raises(InvalidModel, match=said) as caught:
        load_engine(folder)
    assert "\n" not in str(caught.value)


def test_a_shard_index_may_not_lead_elsewhere(folder: Path) -> None:
    """A shard name with a path in it, or of no file, is refused."""
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    for name in ("../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "gone.safetensors", 3):
        index.write_text(json.dumps({"weight_map": {"proj_out.weight": name}}))
        with pytest.raises(InvalidModel, match=r"names .* no file beside it"):
            load_engine(folder)


def test_sharded_weights_are_the_same_model(folder: Path, tiny_wan: Path) -> None:
    """Large models come in several files with an index; split that way the film is the same, bit for bit."""
    path = weights_of(folder / "transformer")
    tensors = load_file(path)
    path.unlink()
    weight_map = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        shard = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / "transformer" / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (sharded,), (whole,) = films(load_engine(folder), request()), films(load_engine(tiny_wan), request())
    assert np.array_equal(sharded.latents, whole.latents)


def test_half_precision_weights_compute_in_float32_on_a_cpu(folder: Path) -> None:
    """Weights stored as float16 are widened, not computed with in half precision."""
    for component in COMPONENTS:
        path = weights_of(folder / component)
        halves = {key: value.half() if value.is_floating_point() else value for key, value in load_file(path).items()}
        save_file(halves, path, metadata={"format": "pt"})
    engine = load_engine(folder, device="cpu")
    for part in (engine._family.parts.transformer, engine._family.parts.vae, engine._family.parts.text_encoder):
        assert {tensor.dtype for tensor in part.parameters()} == {torch.float32}
    assert np.isfinite(films(engine, request())[0].latents).all()


def test_bfloat16_keeps_what_must_stay_exact(tiny_wan: Path) -> None:
    """In bfloat16 the modulation tables, time embedding and norms stay float32, as does the VAE; the film is close."""
    engine = load_engine(tiny_wan, dtype="bfloat16")
    transformer = engine._family.parts.transformer
    assert transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert transformer.scale_shift_table.dtype == torch.float32
    assert transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert {tensor.dtype for tensor in engine._family.parts.vae.parameters()} == {torch.float32}
    (low,), (full,) = films(engine, request()), films(load_engine(tiny_wan), request())
    assert np.abs(low.latents - full.latents).max() < 0.1
    assert low.latents.dtype == np.float32


def test_no_gradients_no_dropout(tiny_wan: Path) -> None:
    """Every part is in eval mode and asks for no gradient."""
    parts = load_engine(tiny_wan)._family.parts
    for part in (parts.transformer, parts.vae, parts.text_encoder):
        assert not any(module.training for module in part.modules())
        assert not any(tensor.requires_grad for tensor in part.parameters())


def test_unknown_words_are_told_with_the_known(tiny_wan: Path, folder: Path) -> None:
    """A wrong backend, dtype or family is a ValueError that lists the right ones."""
    with pytest.raises(UnknownName, match=r"unknown backend 'tensorflow'; known are eager"):
        load_engine(tiny_wan, backend="tensorflow")
    with pytest.raises(UnknownName, match=r"unknown dtype 'int4'; known are bfloat16, float16, float32"):
        load_engine(tiny_wan, dtype="int4")
    edit(folder / "rushes.json", family="mochi")
    with pytest.raises(UnknownName, match=r"unknown model family 'mochi'; known are wan"):
        load_engine(folder)


def test_a_backend_without_its_dependency_names_the_extra(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered backend that can't be imported says what to install."""
    entry = BackendEntry(module="engines.backends.of_tomorrow", extra="openvino")
    monkeypatch.setitem(BACKENDS, "tomorrow", entry)
    with pytest.raises(MissingExtra, match=r"pip install 'rushes\[openvino\]'"):
        load_engine(tiny_wan, backend="tomorrow")
    with pytest.raises(UnknownName, match=r"fused-int8, tomorrow \(extra openvino\)"):
        load_engine(tiny_wan, backend="yesterday")
    assert issubclass(MissingExtra, EngineError)


def test_prompts_are_cleaned_as_stock_cleans_them() -> None:
    """Mojibake is mended, escapes are undone twice, white space is one space; as stock's own function does."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    for prompt in ("  a\t\ncat ", "AT&amp;amp;T &lt;b&gt;", "schÃ¶n", "&quot;x&quot;", "a\u3000b\x1cc", "ﬁne", ""):
        assert clean_prompt(prompt) == prompt_clean(prompt)


def test_an_empty_encoding_is_all_padding(folder: Path) -> None:
    """A tokenizer that adds no end token makes nothing of an empty negative prompt, which is then all zeros."""
    path = folder / "tokenizer" / "tokenizer.json"
    edit(path, post_processor=None)
    engine = load_engine(folder)
    text = engine._family.encode(["", "a cat"])
    assert text.lengths[0] == 0
    assert text.lengths[1] > 0
    assert not text.embeds[0].any()
    assert text.embeds.shape == (2, 512, 32)
    assert np.isfinite(films(engine, request(negative_prompt=""))[0].latents).all()
