"""SGLang-Diffusion, set up from the package index: its wheel unpacked, and beside it what it imports on a CPU."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from beside.servers import sglang_python

VERSION = "0.5.23"
# A wheel names no commit, so this says which one it was. It is the one for CPython 3.11.
WHEEL_SHA256 = "00b3cd5b265ac76c64185fbb6b95424f324ddd9f428d0306b77bc9db9d859937"
_REQUIREMENTS = Path(__file__).with_name("sglang_cpu.txt")


def install(work: Path) -> None:
    """Install below `work`, about 7 GB, unless it was; RuntimeError where the wheel is not the one measured."""
    done = work / "sglang-installed"
    stamp = hashlib.sha256(_REQUIREMENTS.read_bytes() + WHEEL_SHA256.encode()).hexdigest()
    if done.is_file() and done.read_text(encoding="ascii") == stamp:
        return
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError("the pinned wheel is for Python 3.11; run this with that version")
    python = sglang_python(work)
    venv.create(python.parent.parent, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "-r", str(_REQUIREMENTS)])
    # Without its dependencies: they are CUDA kernels for the most part, and pip would have them all.
    _run([*pip, "download", "--no-deps", "--only-binary", ":all:", "-d", str(work), f"sglang=={VERSION}"])
    wheel = next(work.glob(f"sglang-{VERSION}-*.whl"))
    seen = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if seen != WHEEL_SHA256:
        raise RuntimeError(f"{wheel.name} has sha256 {seen}; measured was {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "sglang-source")
    done.write_text(stamp, encoding="ascii")


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=sys.stderr)  # noqa: S603 - pip, with arguments from this file
