"""The Range header, one range of bytes at a time (RFC 9110 section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=\s*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))\s*", re.IGNORECASE | re.ASCII)


class RangeNotSatisfiableError(ValueError):
    """The range begins behind the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Bytes `start` to `stop - 1` of a file."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range asked for, or None for the whole: what is malformed or several at once is ignored, as HTTP allows.

    Serving many small ranges at once has no use for a video and has been a way to wear servers out.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < start:
            return None
    if start >= size or stop <= start:
        raise RangeNotSatisfiableError(f"the range {(header or '')[:64]!r} lies outside the {size} bytes there are")
    return ByteRange(start=start, stop=stop)
