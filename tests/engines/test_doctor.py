"""What `rushes doctor` says of a machine is so."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from engines.backends import BACKENDS
from engines.backends.compiled import FORMS
from engines.capabilities import BackendHere, backends_here
from engines.signing import fingerprint, public_path, signing_key
from tests.command_line import run_rushes


def test_every_backend_has_a_row() -> None:
    """None is left out of the table, and none is in it that does not exist."""
    assert {row.name for row in backends_here()} == BACKENDS.keys() | FORMS.keys()


def test_what_is_absent_tells_how_to_get_it() -> None:
    """By its extra."""
    row = BackendHere(name="x", needs="no-such-thing", extra="y", installed=None, proof="not run", note="")
    assert row.state == "absent: pip install 'rushes[y]'"


def test_it_tells_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, processor, the keys that are trusted, backends with how far they are proven."""
    key = tmp_path / "key.pem"
    signer = signing_key(key)
    monkeypatch.setenv("RUSHES_ENGINE_TRUSTED", str(public_path(key)))
    done = run_rushes("doctor", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["torch"] == torch.__version__
    assert torch.backends.cpu.get_cpu_capability() in found["processor"]
    assert found["trusted_engine_keys"] == fingerprint(signer.public_key())[:16]
    rows = {row["name"]: row for row in found["backends"]}
    assert rows["onnxruntime"]["state"] == f"onnxruntime {version('onnxruntime')}"
    assert rows["tensorrt"]["proof"] == "not run"
    assert rows["tensorrt-rtx"]["proof"] == "compiled"


def test_what_is_absent_is_told_with_its_extra() -> None:
    """In the table too, where square brackets might be taken for markup."""
    absent = [row for row in backends_here() if row.installed is None]
    told = run_rushes("doctor").stdout
    assert absent
    assert all(f"rushes[{row.extra}]" in told for row in absent)
