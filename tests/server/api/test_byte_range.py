"""The Range header: one range at a time, anything odd is ignored, anything beyond the end is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.byte_range import ByteRange, RangeNotSatisfiableError, parse_range


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, 100),
        ("bytes=-1", 99, 100),
        ("bytes=-100", 0, 100),
        ("bytes=-500", 0, 100),
        ("bytes=90-500", 90, 100),
        ("BYTES=1-2", 1, 3),
        ("bytes= 1-2 ", 1, 3),
        ("bytes=99-99", 99, 100),
    ],
)
def test_a_range(header: str, start: int, stop: int) -> None:
    """First and last are inclusive, a suffix counts from the end, and the end is the end."""
    assert parse_range(header, 100) == ByteRange(start=start, stop=stop)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=1--2",
        "bytes=0x1-2",
        "bytes=0-1;",
        "items=0-1",
        "bytes=\u0661-\u0662",
        "bytes=" + "0-0," * 10_000,
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_what_is_ignored(header: str | None) -> None:
    """Malformed, several at once or another unit: the whole file, as HTTP allows."""
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_what_lies_outside(header: str, size: int) -> None:
    """Nothing of the range is there."""
    with pytest.raises(RangeNotSatisfiableError):
        parse_range(header, size)


@given(header=st.text() | st.from_regex(r"bytes=\d{0,20}-\d{0,20}", fullmatch=True), size=st.integers(0, 2**40))
def test_a_range_never_leaves_the_file(header: str, size: int) -> None:
    """Whatever is asked for, what is given lies within the file and is not empty."""
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiableError:
        return
    assert part is None or 0 <= part.start < part.stop <= size
