"""One line for each log record, whatever text a client managed to get into it."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

# Everything that ends a line, moves the cursor or reorders text: C0, DEL, C1, line and bidirectional separators.
_UNSAFE_RANGES = (
    range(0x20),
    range(0x7F, 0xA0),
    range(0x200B, 0x2010),
    range(0x2028, 0x202F),
    range(0x2066, 0x206A),
    range(0xD800, 0xE000),
    range(0xFEFF, 0xFF00),
)
_UNSAFE = {code: f"\\u{code:04x}" for codes in _UNSAFE_RANGES for code in codes}


def one_line(text: str) -> str:
    """The text with everything that could break or disguise a line of a log written as an escape."""
    return text.translate(_UNSAFE)


class LineFormatter(logging.Formatter):
    """`2026-11-23T05:00:00.123Z INFO server.api message`, a traceback escaped onto the same line."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} {self.formatException(record.exc_info)}"
        return f"{_timestamp(record)} {record.levelname} {record.name} {one_line(text)}"


class JsonFormatter(logging.Formatter):
    """The same facts as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send every logger's records of `level` and above to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
