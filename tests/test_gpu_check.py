"""The report of `make gpu-check` tells what passed, what was left out and what failed, with why."""

from __future__ import annotations

from pathlib import Path

from tests.gpu_check import read_tests

_XML = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/>
<testcase classname="tests.a" name="two"><failure message="assert 1 == 2">long</failure></testcase>
<testcase classname="tests.b" name="three"><skipped message="no fp8"/></testcase>
<testcase classname="tests.b" name="four"><error message="CUDA error"/></testcase>
</testsuite></testsuites>"""


def test_tests_are_counted(tmp_path: Path) -> None:
    """A failure and an error alike, by name and message."""
    path = tmp_path / "tests.xml"
    path.write_text(_XML, encoding="utf-8")
    assert read_tests(path) == {
        "passed": 1,
        "skipped": 1,
        "failed": {"tests.a::two": "assert 1 == 2", "tests.b::four": "CUDA error"},
    }
