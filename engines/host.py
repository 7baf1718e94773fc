"""The machine that an engine is built for and the one that is to run it: what of them must agree.

`Host` is torch-free to read and to compare; `this_host` asks torch.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict

if TYPE_CHECKING:
    import torch

# What a processor must be able to, from little to much: code for one runs on those after it.
_CPU_LEVELS = ("DEFAULT", "AVX2", "AVX512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine as an engine sees it.

    `capability` is torch's word for a processor's vector units ("AVX2"), or a GPU's ("sm_90"); `versions` are those of
    the libraries whose code an engine depends on. With `portable` neither processor nor capability matters.
    `byte_sums` says whether sums of products of bytes are exact, or saturate (see `sums_of_bytes_saturate`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    system: str
    machine: str
    device: str
    device_name: str
    capability: str
    portable: bool = False
    byte_sums: Literal["any", "exact", "saturating"] = "any"
    versions: dict[str, str] = field(default_factory=dict)


def this_host(device: torch.device, libraries: Iterable[str], *, portable: bool = False) -> Host:
    """The machine that this runs on, with the versions of `libraries`; "absent" for one that is not installed."""
    import torch  # noqa: PLC0415  the manifest is read without it

    if device.type == "cuda":
        name, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        capability = f"sm_{major}{minor}"
    else:
        name, capability = platform.processor() or platform.machine(), torch.backends.cpu.get_cpu_capability()
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        device=device.type,
        device_name=name,
        capability=capability,
        portable=portable,
        byte_sums="saturating" if device.type == "cpu" and sums_of_bytes_saturate() else "exact",
        versions={library: _version(library) for library in libraries},
    )


def sums_of_bytes_saturate(cpuinfo: str | None = None) -> bool:
    """Whether this processor adds products of bytes in 16 bits, where two large ones do not fit: x86-64 without VNNI.

    `cpuinfo` is what Linux says of it, read when it is not given; what cannot be read is taken for the worse.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text() if path.is_file() else ""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    return not {"avx512_vnni", "avx_vnni"} & set(flags)


def misfits(built: Host, here: Host) -> list[str]:
    """What of the machine that an engine was built for is not so here, each in words; empty where it fits."""
    found = []
    if not built.portable:
        found += [
            f"{what} {theirs}, here {ours}"
            for what, theirs, ours in (
                ("system", built.system, here.system),
                ("processor family", built.machine, here.machine),
                ("device", built.device, here.device),
            )
            if theirs != ours
        ]
        if built.device == here.device and not _runs(built.capability, here.capability):
            found.append(f"capability {built.capability}, here {here.capability}")
    if built.byte_sums == "exact" and here.byte_sums == "saturating":
        found.append("sums of bytes exact (VNNI), here they saturate")
    found += [
        f"{library} {theirs}, here {here.versions.get(library, 'absent')}"
        for library, theirs in built.versions.items()
        if here.versions.get(library) != theirs
    ]
    return found


def _runs(built: str, here: str) -> bool:
    """Whether code for one capability runs on the other; a GPU's runs on its own alone."""
    if built in _CPU_LEVELS and here in _CPU_LEVELS:
        return _CPU_LEVELS.index(built) <= _CPU_LEVELS.index(here)
    return built == here


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
