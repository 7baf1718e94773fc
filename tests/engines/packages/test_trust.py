"""A package is loaded when it is whole, signed by a trusted key and built for this machine; else it is told why not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import engine, load_engine
from engines.errors import PackageRefused
from engines.host import Host, misfits, this_host
from engines.package import FORMAT, INTERFACE, MANIFEST, SIGNATURE, Manifest, read_manifest, sign, verify
from engines.package_loading import LIBRARIES
from engines.signing import public_path, signing_key, trusted_keys

CPU = torch.device("cpu")


@pytest.fixture
def mine(plain_package: Path, tmp_path: Path) -> Path:
    """A copy of the good package, to be spoilt."""
    return Path(shutil.copytree(plain_package, tmp_path / "package"))


@pytest.fixture(autouse=True)
def _nothing_is_loaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused is refused before anything of it is opened by a library."""
    if "refused" in request.node.name:
        monkeypatch.setattr(engine, "load_family", lambda *_, **__: pytest.fail("the model was loaded"))


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def _resigned(folder: Path, key_file: Path, manifest: Manifest, **changes: Any) -> None:
    """Signed anew, with changes that no build would make."""
    sign(folder, replace(manifest, **changes), signing_key(key_file))


def test_a_flipped_bit_anywhere_is_refused(mine: Path) -> None:
    """In every file of the package, manifest and signature too, at its beginning, middle and end."""
    for name in sorted(str(p.relative_to(mine)) for p in mine.rglob("*") if p.is_file()):
        path = mine / name
        size = path.stat().st_size
        for at in {0, size // 2, size - 1}:
            _flip(path, at)
            with pytest.raises(PackageRefused, match=name if name not in {MANIFEST, SIGNATURE} else "signature"):
                load_engine(mine)
            _flip(path, at)
    load_verified = verify(mine, host=this_host(CPU, LIBRARIES))
    assert load_verified.name == "tiny-fused"


def test_a_missing_file_is_refused(mine: Path) -> None:
    """It is named."""
    (mine / "vae" / "config.json").unlink()
    with pytest.raises(PackageRefused, match=r"lacks 1 files, vae/config.json for one"):
        load_engine(mine)


def test_a_further_file_is_refused(mine: Path) -> None:
    """A loader might read it."""
    (mine / "transformer" / "more.safetensors").write_bytes(b"x")
    with pytest.raises(PackageRefused, match=r"transformer/more.safetensors for one"):
        load_engine(mine)


def test_a_link_is_refused(mine: Path, tmp_path: Path) -> None:
    """Though it leads to the very bytes that were signed."""
    config = mine / "vae" / "config.json"
    elsewhere = tmp_path / "elsewhere.json"
    config.rename(elsewhere)
    config.symlink_to(elsewhere)
    with pytest.raises(PackageRefused, match="is a link"):
        load_engine(mine)


def test_another_key_is_refused(mine: Path, tmp_path: Path) -> None:
    """A package that someone else signed, and one whose signature was cut."""
    _resigned(mine, tmp_path / "other.pem", read_manifest(mine))
    with pytest.raises(PackageRefused, match="by none of the 1 trusted keys"):
        load_engine(mine)
    (mine / SIGNATURE).write_bytes(b"short")
    with pytest.raises(PackageRefused, match="by none of the 1 trusted keys"):
        load_engine(mine)
    (mine / SIGNATURE).unlink()
    with pytest.raises(PackageRefused, match=r"no readable engine\.sig"):
        load_engine(mine)


def test_without_any_trusted_key_all_is_refused(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal tells what to set."""
    monkeypatch.delenv("RUSHES_ENGINE_TRUSTED")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(PackageRefused, match="this machine trusts no key; name the builder's public key"):
        load_engine(mine)


def test_several_keys_may_be_trusted(
    mine: Path, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any of them will do."""
    other = tmp_path / "other.pem"
    signing_key(other)
    both = os.pathsep.join(str(public_path(path)) for path in (other, key_file))
    monkeypatch.setenv("RUSHES_ENGINE_TRUSTED", both)
    assert verify(mine, host=this_host(CPU, LIBRARIES)).name == "tiny-fused"


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(mine: Path, tmp_path: Path, content: bytes) -> None:
    """Empty, text, a PEM of something else, absent."""
    path = tmp_path / "no.pem"
    path.write_bytes(content)
    with pytest.raises(PackageRefused, match="holds no public Ed25519 key"):
        trusted_keys([path])
    with pytest.raises(PackageRefused, match="can't be read"):
        trusted_keys([tmp_path / "absent.pem"])


def test_a_stale_version_is_refused(mine: Path, key_file: Path) -> None:
    """Of a library, of the package's format, and of how parts are called: named with both versions."""
    manifest = read_manifest(mine)
    host = replace(manifest.host, versions={"torch": "1.0.0"})
    _resigned(mine, key_file, manifest, host=host)
    with pytest.raises(PackageRefused, match=r"torch 1\.0\.0, here 2\."):
        load_engine(mine)
    for what, ours in (("format", FORMAT), ("interface", INTERFACE)):
        _resigned(mine, key_file, manifest, **{what: 99})
        with pytest.raises(PackageRefused, match=f"has {what} 99, and this program reads {what} {ours}"):
            load_engine(mine)


def test_another_machine_is_refused(mine: Path, key_file: Path) -> None:
    """What is not portable is held to processor, device and vector units; what is portable is not."""
    manifest = read_manifest(mine)
    assert manifest.host.portable
    other = replace(manifest.host, machine="riscv64", portable=False)
    _resigned(mine, key_file, manifest, host=other)
    with pytest.raises(PackageRefused, match="processor family riscv64, here"):
        load_engine(mine)
    _resigned(mine, key_file, manifest, host=replace(other, portable=True))
    assert verify(mine, host=this_host(CPU, LIBRARIES)).host.machine == "riscv64"


def test_less_of_a_processor_is_enough_and_more_is_not() -> None:
    """Code for AVX2 runs on AVX512, not the other way; a GPU's runs on that GPU's kind alone."""
    base = Host(system="Linux", machine="x86_64", device="cpu", device_name="", capability="AVX2")
    assert misfits(base, replace(base, capability="AVX512")) == []
    assert misfits(replace(base, capability="AVX512"), base) == ["capability AVX512, here AVX2"]
    gpu = replace(base, device="cuda", capability="sm_90")
    assert misfits(gpu, replace(gpu, capability="sm_100")) == ["capability sm_90, here sm_100"]
    exact, saturating = replace(base, byte_sums="exact"), replace(base, byte_sums="saturating")
    assert misfits(exact, saturating) == ["sums of bytes exact (VNNI), here they saturate"]
    assert misfits(replace(exact, portable=True), saturating) == ["sums of bytes exact (VNNI), here they saturate"]
    assert misfits(saturating, exact) == misfits(base, saturating) == []
    assert misfits(gpu, base) == ["device cuda, here cpu"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        json.dumps({"format": FORMAT, "interface": INTERFACE}).encode(),
        json.dumps({"format": FORMAT, "interface": INTERFACE, "x": 2}).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(mine: Path, key_file: Path, content: bytes) -> None:
    """Signed or not, in a sentence."""
    (mine / MANIFEST).write_bytes(content)
    (mine / SIGNATURE).write_bytes(signing_key(key_file).sign(content))
    with pytest.raises(PackageRefused):
        load_engine(mine)
    with pytest.raises(PackageRefused):
        read_manifest(mine)


def test_a_part_outside_the_package_is_refused(mine: Path, key_file: Path) -> None:
    """A manifest that names a path which is no file of its own."""
    _resigned(mine, key_file, read_manifest(mine), parts={"step": "../../../etc/passwd", "decoder": "decoder.onnx"})
    with pytest.raises(PackageRefused, match=r"names \.\./\.\./\.\./etc/passwd as a part"):
        load_engine(mine)


def test_a_private_key_is_nobody_elses_to_read(key_file: Path) -> None:
    """It is made so."""
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_manifest_is_read_as_it_was_written(plain_package: Path) -> None:
    """Nothing is lost on the way."""
    content = json.loads((plain_package / MANIFEST).read_text())
    assert json.loads(json.dumps(asdict(read_manifest(plain_package)))) == content
