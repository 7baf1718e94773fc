"""Every error that engines raise on purpose, in one tree.

    EngineError
    ├── InvalidRequest (ValueError)   a request breaks a bound; `.field` names the field
    ├── UnknownName (ValueError)      no model, sampler, backend, ... of that name; `.known` lists what there is
    ├── InvalidModel (ValueError)     a model folder is incomplete, malformed or not safe to read
    ├── PackageRefused (ValueError)   an engine package was changed, is not trusted, or does not fit this machine
    ├── BuildRefused (ValueError)     an engine that was built is not as accurate as its recipe asks
    ├── ModelUnreachable              a model that must be fetched could not be
    ├── MissingExtra                  an optional dependency is not installed; the message names the extra
    └── EncodingFailed                the video encoder refused

What is a `ValueError` is the caller's to repair; the rest is the host's.
"""

from __future__ import annotations

from collections.abc import Iterable


class EngineError(Exception):
    """Base of all errors that engines raise on purpose; the message is one sentence fit for a user."""


class InvalidRequest(EngineError, ValueError):  # noqa: N818  (reads as what it says where it is caught)
    """A request breaks a bound of the model."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownName(EngineError, ValueError):  # noqa: N818
    """Nothing is known by that name."""

    def __init__(self, what: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.known = tuple(sorted(known))
        super().__init__(f"unknown {what} {name!r}; known are {', '.join(self.known)}{hint}")


class InvalidModel(EngineError, ValueError):  # noqa: N818
    """A model folder is incomplete, malformed or not safe to read."""


class PackageRefused(EngineError, ValueError):  # noqa: N818
    """An engine package was changed after it was signed, is signed by no trusted key, or does not fit this machine."""


class BuildRefused(EngineError, ValueError):  # noqa: N818
    """An engine that was built is further from the reference than its recipe allows, or cannot be built here.

    `cannot_here` tells the second from the first: another machine might build it.
    """

    def __init__(self, message: str, *, cannot_here: bool = False) -> None:
        super().__init__(message)
        self.cannot_here = cannot_here


class ModelUnreachable(EngineError):  # noqa: N818
    """A model that must be fetched could not be."""


class MissingExtra(EngineError):  # noqa: N818
    """An optional dependency is not installed."""


class EncodingFailed(EngineError):  # noqa: N818
    """The video encoder refused."""
