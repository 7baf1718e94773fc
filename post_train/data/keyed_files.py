"""Tensors on disk under a hash of everything that decides them, so that a stale one can never be read.

A key is made of named facts; change any of them and another file is meant. A file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.whole_writes import appearing_whole


class KeyedFiles:
    """Groups of tensors under `root`, each in a safetensors file named by its key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the tensors of `key` are or would be; 256 folders, since some file systems dislike one large one."""
        return self.root / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of `key`. ValueError when the file is damaged, FileNotFoundError when there is none."""
        try:
            return load_file(self.path(key))
        except SafetensorError as error:
            raise self._damaged(key, error) from None

    def _damaged(self, key: str, error: SafetensorError) -> ValueError:
        return ValueError(f"{self.path(key)} is damaged ({error}); delete it and it is made anew")

    def shape(self, key: str, name: str) -> tuple[int, ...]:
        """The shape of one tensor of `key`, by the file's header alone. Raises as `read` does."""
        try:
            with safe_open(self.path(key), "pt") as file:
                return tuple(file.get_slice(name).get_shape())
        except SafetensorError as error:
            raise self._damaged(key, error) from None

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Stores the tensors of `key`; two processes may write one key at once, for they write the same."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with appearing_whole(path) as part:
                save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
