"""What Redis holds, turned into the queue's records, and the names that may become keys."""

from __future__ import annotations

import json
import re
from typing import Any

from server.queue.types import JobRecord, Progress, State, WorkerNotice, WorkerState

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def require_name(text: str, what: str) -> str:
    """The text, if it may be part of a Redis key and of a file's name; ValueError otherwise."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{what} {text[:80]!r} is not a name; use 1 to 64 letters, digits, '_', '-' or '.', a letter or digit first"
        )
    return text


def worker_notice(text: str) -> WorkerNotice:
    """The notice in the JSON that a worker left."""
    fields = json.loads(text)
    return WorkerNotice(**(fields | {"state": WorkerState(fields["state"])}))


def job_record(job_id: str, fields: dict[str, str]) -> JobRecord:
    """The record kept in a job's hash; times are Unix seconds by Redis's clock."""
    return JobRecord(
        job_id=job_id,
        tenant=fields["tenant"],
        state=State(fields["state"]),
        attempt=int(fields["attempt"]),
        priority=int(fields["priority"]),
        shape_key=fields["shape"],
        cost=int(fields["cost_ms"]) / 1000,
        request=json.loads(fields["request"]),
        created_at=int(fields["created_ms"]) / 1000,
        started_at=_seconds(fields, "started_ms"),
        finished_at=_seconds(fields, "finished_ms"),
        progress=_progress(fields),
        cancel_requested="cancel" in fields,
        webhook=fields.get("webhook"),
        artifact=fields.get("artifact"),
        facts=_json(fields.get("facts")),
        error_code=fields.get("error_code"),
        error_message=fields.get("error_message"),
    )


def _seconds(fields: dict[str, str], name: str) -> float | None:
    return int(fields[name]) / 1000 if name in fields else None


def _progress(fields: dict[str, str]) -> Progress | None:
    if "stage" not in fields:
        return None
    return Progress(stage=fields["stage"], step=int(fields["step"]), num_steps=int(fields["num_steps"]))


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
