"""Whether a diffusers folder is safe and complete enough to load, told before any weight is read.

Torch-free. What is refused, and why: pickle checkpoints (loading one runs its code), configs that point at code
(`auto_map` and its relatives), and files that only bear the name of a safetensors file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.errors import InvalidModel

MAX_JSON_BYTES = 64 * 1024 * 1024  # the largest published tokenizer.json is a quarter of this
MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own cap
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
CODE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "trust_remote_code",
        "code_revision",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation_internal",
        "quantization_config",
    }
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size; anything else is `InvalidModel`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InvalidModel(f"{path.name} is larger than {MAX_JSON_BYTES} bytes, which no config is")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidModel(f"{path.parent.name}/{path.name} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidModel(f"{path.parent.name}/{path.name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidModel(f"{path.parent.name}/{path.name} must hold a JSON object, not {type(content).__name__}")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Read a component's config and refuse one that points at code."""
    config = read_json(path)
    found = sorted(_code_keys(config))
    if found:
        raise InvalidModel(
            f"{path.parent.name}/{path.name} has {', '.join(found)}, which can make a loader run code; "
            "remove it if you trust the weights"
        )
    return config


def read_index(folder: Path) -> dict[str, Any]:
    """Read `model_index.json` of a diffusers folder."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise InvalidModel(f"{folder.name} holds no model_index.json; a model is a folder saved by diffusers")
    return read_config(path)


def check_weights(folder: Path) -> list[Path]:
    """The safetensors files of a component, each checked to be one; a pickle-only folder is refused by name."""
    if not folder.is_dir():
        raise InvalidModel(f"the model has no folder {folder.name}")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
        if pickles:
            raise InvalidModel(
                f"{folder.name}/{pickles[0]} is a pickle checkpoint, and loading one runs whatever code is in it; "
                "convert it to safetensors"
            )
        raise InvalidModel(f"{folder.name} holds no .safetensors file")
    for path in files:
        read_header(path)
    _check_shards(folder)
    return files


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> dtype, shape, offsets. Anything else by that name is refused."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        # A zip or a pickle under this name has its magic where the length should be, which no file is long enough for.
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise InvalidModel(f"{path.parent.name}/{path.name} is not a safetensors file, whatever its name says")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InvalidModel(f"{path.parent.name}/{path.name} is not a safetensors file: its header is not JSON")
    header.pop("__metadata__", None)
    return header


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a component's safetensors files, from their headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in check_weights(folder):
        shapes.update({name: tuple(entry["shape"]) for name, entry in read_header(path).items()})
    return shapes


def _check_shards(folder: Path) -> None:
    """A shard index names plain files beside it, all there: never a path that leads elsewhere."""
    for index in folder.glob("*.safetensors.index.json"):
        names = set(read_json(index).get("weight_map", {}).values())
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
                raise InvalidModel(f"{folder.name}/{index.name} names {name!r}, which is no file beside it")


def _code_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {key for key, inner in value.items() if key in CODE_KEYS and inner is not None}
        return here.union(*(_code_keys(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(_code_keys(inner) for inner in value))
    return set()
