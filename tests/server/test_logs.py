"""A log record is one line whatever a client wrote into it."""

from __future__ import annotations

import json
import logging

import pytest

from server.logs import JsonFormatter, LineFormatter

NASTY = [
    "line\nbreak",
    "carriage\rreturn",
    "terminal \x1b[31m colour \x1b]0;title\x07",
    "c1 \x9b31m",
    "unicode \u2028 line \u2029 paragraph \x85 next",
    "bidi \u202e override \u2066 isolate",
    "null \x00 and \ud800 half",
    "delete \x7f",
]


def record(message: str, *, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("rushes.test", logging.INFO, "file", 1, "%s", (message,), info)


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("formatter", [LineFormatter(), JsonFormatter()])
def test_text_of_a_client_stays_on_its_line(formatter: logging.Formatter, text: str) -> None:
    """No character that ends a line, moves the cursor or reorders text gets through."""
    line = formatter.format(record(text))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize("formatter", [LineFormatter(), JsonFormatter()])
def test_a_trace_stays_on_its_line(formatter: logging.Formatter) -> None:
    """A traceback is part of its record's one line."""
    with pytest.raises(ValueError) as caught:
        int("first\nsecond")
    error = caught.value
    line = formatter.format(record("failed", error=error))
    assert len(line.splitlines()) == 1
    assert "ValueError" in line


def test_json_lines_are_json() -> None:
    """A JSON record gives its message back unchanged."""
    told = json.loads(JsonFormatter().format(record("a\nb")))
    assert (told["message"], told["level"], told["logger"]) == ("a\nb", "INFO", "rushes.test")
