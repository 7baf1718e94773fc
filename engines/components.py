"""Load one component of a diffusers folder from safetensors, after its config and tensor names have been checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from engines.errors import InvalidModel
from engines.model_folder import check_weights, read_config, tensor_shapes

# What libraries raise when a config has a value of the wrong type, sign or name: nearly anything.
_DESCRIPTION_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)

DiffusersModel = TypeVar("DiffusersModel", bound=ModelMixin)
TextModel = TypeVar("TextModel", bound=PreTrainedModel)

_CACHE_LINE = 64  # bytes


def load_diffusers_model(
    cls: type[DiffusersModel], folder: Path, dtype: torch.dtype, device: torch.device
) -> DiffusersModel:
    """A diffusers model in eval mode; every tensor of the config must be in the files, and no other."""
    config = read_config(folder / "config.json")
    if config.get("_class_name") != cls.__name__:
        raise InvalidModel(f"{folder.name} is a {config.get('_class_name')!r}; a {cls.__name__} is needed")
    with _blamed_on(folder / "config.json"):
        expected = expected_shapes(cls, config)
    compare_tensors(folder.name, tensor_shapes(folder), expected)
    model = cls.from_pretrained(
        folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=True
    )
    return _frozen(model, device)


def load_some_of(
    cls: type[DiffusersModel], folder: Path, kept: Callable[[str], bool], dtype: torch.dtype, device: torch.device
) -> DiffusersModel:
    """A diffusers model of which the folder has the tensors that are `kept` alone; of the others it has none either."""
    with _blamed_on(folder / "config.json"):
        model = build_on_meta(cls, read_config(folder / "config.json"))
    for path, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001  torch has no other way to take one away
            for name in [n for n in tensors if not kept(f"{path}.{n}")]:
                del tensors[name]
    compare_tensors(folder.name, tensor_shapes(folder), _shapes(model))
    found = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in found.items()}, assign=True)
    return _frozen(model, device)


def keep_some_of(folder: Path, kept: Callable[[str], bool]) -> None:
    """Takes all tensors but those that are `kept` out of a component's folder that nobody uses yet."""
    files = check_weights(folder)
    found = {name: tensor for file in files for name, tensor in load_file(file).items() if kept(name)}
    for stale in (*files, *folder.glob("*.safetensors.index.json")):
        stale.unlink()
    save_file(found, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def load_text_model(cls: type[TextModel], folder: Path, dtype: torch.dtype, device: torch.device) -> TextModel:
    """A transformers model in eval mode; a checkpoint that leaves weights to chance is refused."""
    config = read_config(folder / "config.json")
    config_class: Any = cls.config_class
    architectures, kind = config.get("architectures"), config.get("model_type")
    if not isinstance(architectures, list) or cls.__name__ not in architectures or kind != config_class.model_type:
        raise InvalidModel(f"{folder.name} is {architectures!r} of type {kind!r}; a {cls.__name__} is needed")
    with _blamed_on(folder / "config.json"), torch.device("meta"):
        expected = _shapes(cls(config_class.from_dict(config)))
    compare_shapes(folder.name, tensor_shapes(folder), expected)
    with no_progress_bars():
        loaded: Any = cls.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise InvalidModel(f"{folder.name} lacks {len(missing)} tensors, {missing[0]!r} for one")
    return _frozen(model, device)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, from its files alone."""
    for path in sorted(folder.glob("*config.json")):
        read_config(path)
    with _blamed_on(folder / "tokenizer.json"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def expected_shapes(cls: type[ModelMixin], config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this config saves; builds it without memory for its weights."""
    return _shapes(build_on_meta(cls, config))


def build_on_meta(cls: Any, config: Mapping[str, Any]) -> Any:
    """A diffusers model of this config without memory for its weights: for names, shapes, counts and FLOPs."""
    with torch.device("meta"):
        return cls.from_config(dict(config)).eval()


def compare_tensors(what: str, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise `InvalidModel` unless names and shapes agree: a loader would fill gaps at random or pass over the rest."""
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise InvalidModel(
            f"{what} lacks {len(missing)} of {len(expected)} tensors of its config, {missing[0]!r} for one"
        )
    if surplus:
        raise InvalidModel(
            f"{what} holds {len(surplus)} tensors that its config knows nothing of, {surplus[0]!r} for one"
        )
    compare_shapes(what, found, expected)


def compare_shapes(what: str, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise `InvalidModel` unless every tensor that is in both has one shape."""
    for name in sorted(expected.keys() & found.keys()):
        shape = expected[name]
        if found[name] != shape:
            raise InvalidModel(f"{what}: {name} is {list(found[name])}, and by its config {list(shape)}")


def _shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _frozen(model: Any, device: torch.device) -> Any:
    _align(model)
    return model.to(device).eval().requires_grad_(False)  # noqa: FBT003  (torch's own signature)


def _align(model: torch.nn.Module) -> None:
    """Moves weights that lie across cache lines, as views of a file may, into memory of their own.

    A CPU's matrix products add up in another order there, so that one model in two files would make another film.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _CACHE_LINE:
            tensor.data = tensor.data.clone(memory_format=torch.preserve_format)


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Turn what a library raises over a file that describes nothing it can build into `InvalidModel`.

    Only around building from descriptions: where weights are read, running out of memory is no fault of a file.
    """
    try:
        yield
    except _DESCRIPTION_FAULTS as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InvalidModel(
            f"{path.parent.name}/{path.name} describes nothing that can be built: {reason[0]}"
        ) from error


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Whoever loads shows progress in their own way; a bar on stderr would tear it."""
    libraries = [library for library in (transformers_logging, diffusers_logging) if library.is_progress_bar_enabled()]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
