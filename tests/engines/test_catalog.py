"""A model is found by built-in name, folder or hub id, and what can't be found is told with what can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from engines import catalog
from engines.catalog import PATTERNS, find_model
from engines.errors import ModelUnreachable, UnknownName


def test_a_local_folder_is_itself(tiny_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, absolute or relative, leads to its folder."""
    assert find_model(str(tiny_wan)) == tiny_wan.resolve()
    monkeypatch.chdir(tiny_wan.parent)
    assert find_model(tiny_wan.name) == tiny_wan.resolve()


@pytest.mark.parametrize("name", ["nope", "", "../gone", "/gone/away", "a/b/c", "owner/../name", "-x/y", "a b/c"])
def test_an_unknown_name_lists_the_known(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither a folder nor a hub id is a ValueError that lists the built-in and published models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "_fetch", lambda _: pytest.fail("nothing is fetched for a name of no known form"))
    with pytest.raises(UnknownName, match=r"Wan-AI/Wan2\.1-T2V-1\.3B-Diffusers.*diorama.*local folder"):
        find_model(name)


def test_a_built_in_model_without_weights_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation that lacks the weights is told apart from a wrong name."""
    monkeypatch.setattr(catalog.resources, "files", lambda _package: tmp_path)
    with pytest.raises(ModelUnreachable, match="not part of this installation"):
        find_model("diorama")
    (tmp_path / "weights" / "diorama").mkdir(parents=True)
    (tmp_path / "weights" / "diorama" / "model_index.json").write_text("{}")
    assert find_model("diorama") == tmp_path / "weights" / "diorama"


def test_a_hub_id_is_fetched_without_pickles_or_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only safetensors, JSON and tokenizer files are asked for, at the revision named."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_model("owner/model") == tmp_path
    assert find_model("owner/model@v1.0") == tmp_path
    assert asked == [
        ("owner/model", {"revision": None, "allow_patterns": list(PATTERNS)}),
        ("owner/model", {"revision": "v1.0", "allow_patterns": list(PATTERNS)}),
    ]
    assert not any(pattern.endswith((".bin", ".pt", ".py", ".ckpt", "*")) for pattern in PATTERNS)


def test_a_hub_out_of_reach_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline and without a cached copy, the real client's refusal becomes an error that says what to do."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnreachable, match=r"owner/model can't be fetched: .* name the local folder$") as caught:
        find_model("owner/model")
    assert "\n" not in str(caught.value)
