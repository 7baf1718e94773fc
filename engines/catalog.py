"""From what a person calls a model (a built-in name, a folder, a hub id) to a folder on this machine.

For operators: a name that comes from a client is looked up among the models being served, never handed to this module.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from engines.errors import ModelUnreachable, UnknownName

BUILT_IN = ("diorama", "diorama-128", "diorama-sft")
# Published Wan models in diffusers' layout that the wan family loads.
PUBLISHED = (
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
)
# What is fetched: never a pickle, never code.
PATTERNS = ("*.safetensors", "*.json", "*.model", "*/*.txt")

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,100})?$")


def find_model(name_or_path: str) -> Path:
    """The folder of a model: a built-in one, a local folder, or a hub id (`owner/name`, `owner/name@revision`).

    A hub id is fetched into the hub's cache when it isn't there. What is none of these raises `UnknownName` (a
    `ValueError`); what can't be fetched raises `ModelUnreachable`.
    """
    if name_or_path in BUILT_IN:
        return built_in(name_or_path)
    folder = Path(name_or_path).expanduser()
    if name_or_path and folder.is_dir():
        return folder.resolve()
    if _HUB_ID.fullmatch(name_or_path):
        return _fetch(name_or_path)
    known = (*BUILT_IN, *PUBLISHED)
    raise UnknownName("model", name_or_path, known, hint="; or name a local folder saved by diffusers")


def built_in(name: str) -> Path:
    """The folder of a built-in model; an installation without its weights raises `ModelUnreachable`."""
    folder = Path(str(resources.files("engines"))) / "weights" / name
    if not (folder / "model_index.json").is_file():
        raise ModelUnreachable(f"the built-in model {name!r} is not part of this installation: {folder} has no weights")
    return folder


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and only hub ids need it)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repository, _, revision = hub_id.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(PATTERNS)))
    except LocalEntryNotFoundError:
        reason = "the hub can't be reached from here and the model is not in the local cache"
    except HFValidationError as error:
        reason = str(error)
    except HfHubHTTPError as error:
        reason = f"the hub answered: {str(error).splitlines()[0]}"
    raise ModelUnreachable(f"{hub_id} can't be fetched: {reason}; fetch it elsewhere and name the local folder")
