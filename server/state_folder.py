"""The folder that outlives a stack, and the lock that lets only one stack use it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

# A stack that was killed leaves a Valkey that takes a moment to write its last data; it holds the lock until then.
_PATIENCE_S = 5.0


class StateFolderInUseError(ValueError):
    """Another stack, or what is left of it, uses the state folder."""


class StateFolder:
    """An existing, private, locked folder; the lock ends with the last process that holds `lock_fd`."""

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        """Make the folder if needed and lock it; `StateFolderInUseError` after waiting `patience_s` seconds."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock_fd = os.open(path / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._lock(patience_s)
        except StateFolderInUseError:
            os.close(self.lock_fd)
            raise

    def close(self) -> None:
        """Let the next stack have the folder."""
        os.close(self.lock_fd)

    def _lock(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                holder = os.pread(self.lock_fd, 20, 0).decode(errors="replace").strip() or "unknown"
                raise StateFolderInUseError(
                    f"the state folder {self.path} is used by another `rushes serve` (process {holder}): "
                    "stop that one, or give this one its own with --state-dir"
                ) from None
            os.ftruncate(self.lock_fd, 0)
            os.pwrite(self.lock_fd, str(os.getpid()).encode(), 0)
            return
