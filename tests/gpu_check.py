"""`make gpu-check`: the tests that need a GPU and the timings of the operators on it, in one report.

Both are carried out whatever becomes of the other; the exit code is 0 when both went well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def main(folder: Path, options: list[str]) -> int:
    """Writes `report.json` into `folder`; `options` go to pytest."""
    folder.mkdir(parents=True, exist_ok=True)
    xml, rushes = folder / "tests.xml", Path(sys.executable).with_name("rushes")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "--junit-xml", str(xml), *options], check=False, env=environment
    )
    bench = subprocess.run(
        [str(rushes), "bench", "kernels", "--json"], check=False, env=environment, stdout=subprocess.PIPE, text=True
    )
    report = {
        "ok": tests.returncode == 0 and bench.returncode == 0,
        "tests": read_tests(xml) if xml.exists() else None,
        "bench": json.loads(bench.stdout) if bench.stdout.strip() else None,
    }
    path = folder / "report.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return 0 if report["ok"] else 1


def read_tests(xml: Path) -> dict[str, object]:
    """Counts, and the names and messages of what failed, of pytest's JUnit file."""
    cases = list(ET.parse(xml).iter("testcase"))  # noqa: S314  pytest wrote it a moment ago
    failed = {
        f"{case.get('classname')}::{case.get('name')}": found.get("message", "")[:500]
        for case in cases
        for found in (*case.findall("failure"), *case.findall("error"))
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
