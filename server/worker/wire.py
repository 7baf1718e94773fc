"""What supervisor and child say to each other: small typed messages as length-prefixed JSON, and nothing executable."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

MAX_MESSAGE_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size


class WireError(RuntimeError):
    """A message is torn, too long, or not one of ours: the peer cannot be trusted any further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One job of a batch; `request` is a request document, `path` is where its film is to be written."""

    job_id: str
    request: dict[str, Any]
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """To the child: make these films together; `items` are the fields of `BatchItem`s."""

    items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """To the child: stop this job before its next step."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """From the child: the engine is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed:
    """From the child: the engine will never load, and why, for the operator."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReached:
    """From the child: a job enters a stage."""

    job_id: str
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """From the child: a step of a job is complete."""

    job_id: str
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDone:
    """From the child: the film is written at its path; `cost_model` is what the engine now knows of its speed."""

    job_id: str
    facts: dict[str, Any]
    cost_model: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    """From the child: the job stopped because it was told to."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed:
    """From the child: the job cannot be done; `code` and `message` are fit for clients."""

    job_id: str
    code: str
    message: str


Order: TypeAlias = RunBatch | CancelJob
Report: TypeAlias = Ready | LoadFailed | StageReached | StepDone | JobDone | JobCancelled | JobFailed
Message: TypeAlias = Order | Report
_BY_TAG: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The message with its length before it; WireError when it is too long to send."""
    body = json.dumps({"tag": type(message).__name__, **asdict(message)}).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise WireError(f"a {type(message).__name__} of {len(body)} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """How many bytes follow a header; WireError when that is more than a message may have."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {length} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
    return length


def decode(body: bytes) -> Message:
    """The message in a body; WireError unless tag, names and types of the fields are exactly right."""
    try:
        content = json.loads(body)
        kind = _BY_TAG[content.pop("tag")]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WireError(f"a message of {len(body)} bytes is not one of ours") from error
    return _typed(kind, content)


def batch_items(message: RunBatch) -> list[BatchItem]:
    """The typed items of a batch; WireError when one is malformed."""
    return [_typed(BatchItem, item) for item in message.items]


def _typed(kind: type[Any], content: dict[str, Any]) -> Any:
    types = get_type_hints(kind)
    if set(content) != {field.name for field in fields(kind)}:
        raise WireError(f"a {kind.__name__} has the wrong fields: {', '.join(sorted(content))[:200]}")
    for name, value in content.items():
        expected = get_origin(types[name]) or types[name]
        # bool is an int to Python, but not to us.
        if not isinstance(value, expected) or isinstance(value, bool):
            raise WireError(f"{name} of a {kind.__name__} is a {type(value).__name__}, not a {expected.__name__}")
    return kind(**content)
