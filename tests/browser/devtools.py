"""A real Chromium without a screen, driven by the DevTools protocol over a pipe, so that no package is needed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 60.0
_KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8, "Enter": 13}


def find_chromium() -> str:
    """The browser's path; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed here (looked for {', '.join(_NAMES)})")
    return found


class Page:
    """One tab: commands, scripts, keys, and every event that came meanwhile."""

    def __init__(self, reader: int, writer: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._reader, self._writer, self._waiting, self._number = reader, writer, b"", 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; an error of the protocol fails the test."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> dict[str, Any]:
        """The parameters of the next event of that name."""
        while True:
            for index, event in enumerate(self.events):
                if event.get("method") == method:
                    return self.events.pop(index)["params"]
            self.events.append(self._next())

    def open(self, path: Path) -> None:
        """Shows a file and waits until it has loaded."""
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, script: str) -> Any:
        """What `script` evaluates to, once it has settled."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until `script` is true, asked in the page at each of its frames."""
        loop = f"new Promise(done => {{ const ask = () => ({script}) ? done() : requestAnimationFrame(ask); ask(); }})"
        self.value(loop)

    def press(self, key: str) -> None:
        """One key, down and up."""
        code = _KEYS.get(key, ord(key[0]))
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {_SECONDS:g} seconds"
            part = os.read(self._reader, 1 << 16)
            assert part, "the browser has ended"
            self._waiting += part
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with its state in `profile`: the same folder again is the same person's browser again."""
    path = find_chromium()
    to_browser, from_browser = os.pipe(), os.pipe()
    # The protocol wants descriptors 3 and 4; high numbers first, so that neither is overwritten while it is moved.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (to_browser[0], from_browser[1])]
    flags = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-extensions", "--disable-background-networking", "--disable-component-update", "--mute-audio"),
        *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
    )
    script = f'exec "$0" "$@" 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-'
    browser = subprocess.Popen(
        ["bash", "-c", script, path, *flags], pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for fd in (to_browser[0], from_browser[1], *high):
        os.close(fd)
    try:
        page = Page(from_browser[0], to_browser[1])
        yield page
        # A person closes the window: what the page has kept is then on disk.
        page.send("Browser.close")
        browser.wait(timeout=30)
    finally:
        browser.kill()
        browser.wait()
        for fd in (to_browser[1], from_browser[0]):
            os.close(fd)
