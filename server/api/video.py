"""GET /jobs/{id}/video: the finished file, whole or by range."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from server.api.byte_range import ByteRange, RangeNotSatisfiableError, parse_range
from server.api.errors import Problem, documented
from server.api.services import TheServices
from server.api.views import FoundJob
from server.artifacts.filesystem import ArtifactNotFoundError, FilesystemArtifacts
from server.queue.types import TERMINAL, JobRecord, State

router = APIRouter(tags=["jobs"])
_CHUNK = 256 * 1024
_MEDIA_TYPES = {"mp4": "video/mp4", "webm": "video/webm"}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES = documented(
    "invalid_host",
    "not_found",
    "video_missing",
    "video_not_ready",
    "video_expired",
    "range_not_satisfiable",
    "queue_unavailable",
) | {
    200: {"content": {"video/mp4": _FILE, "video/webm": _FILE}, "description": "The whole file."},
    206: {"content": {"video/mp4": _FILE, "video/webm": _FILE}, "description": "The range that was asked for."},
    304: {"description": "The client has it already (If-None-Match)."},
}


@router.get("/jobs/{job_id}/video", response_class=Response, responses=_RESPONSES)
async def get_video(
    *,
    request: Request,
    record: FoundJob,
    services: TheServices,
    requested_range: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The video file. One byte range at a time is served; HEAD tells size and type alone."""
    artifact = _require_artifact(record)
    file = _open(services.artifacts, artifact)
    headers = _headers(record, artifact)
    if if_none_match is not None and _matches(if_none_match, headers["ETag"]):
        file.close()
        return Response(status_code=304, headers=headers)
    size = os.fstat(file.fileno()).st_size
    try:
        # A part of another version would be joined to what the client has, so that If-Range must match exactly.
        wanted = parse_range(requested_range, size) if if_range in (None, headers["ETag"]) else None
    except RangeNotSatisfiableError as error:
        file.close()
        raise Problem("range_not_satisfiable", str(error), headers={"Content-Range": f"bytes */{size}"}) from None
    part = wanted or ByteRange(start=0, stop=size)
    headers["Content-Length"] = str(part.length)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    status = 200 if wanted is None else 206
    media_type = _MEDIA_TYPES[artifact.rpartition(".")[2]]
    if request.method == "HEAD":
        file.close()
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_bytes(file, part), status_code=status, headers=headers, media_type=media_type)


router.add_api_route(
    "/jobs/{job_id}/video", get_video, methods=["HEAD"], response_class=Response, include_in_schema=False
)


def _require_artifact(record: JobRecord) -> str:
    if record.state not in TERMINAL:
        raise Problem("video_not_ready", f"the job is {record.state}; wait until it has succeeded", state=record.state)
    if record.state is not State.SUCCEEDED or record.artifact is None:
        raise Problem("video_missing", f"the job has {record.state}, so that there is no video", state=record.state)
    return record.artifact


def _open(artifacts: FilesystemArtifacts, name: str) -> BinaryIO:
    try:
        return artifacts.open(name)
    except ArtifactNotFoundError:
        raise Problem("video_expired", "the video of this job is no longer kept") from None


def _headers(record: JobRecord, artifact: str) -> dict[str, str]:
    extension = artifact.rpartition(".")[2]
    return {
        "Accept-Ranges": "bytes",
        # An artifact never changes under its name, so that the name is as good as a hash of the content.
        "ETag": f'"{record.job_id}-{record.attempt}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'inline; filename="{record.job_id}.{extension}"',
    }


def _matches(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return bool(tags & {"*", etag})


async def _bytes(file: BinaryIO, part: ByteRange) -> AsyncIterator[bytes]:
    with file:
        file.seek(part.start)
        left = part.length
        while left and (chunk := await asyncio.to_thread(file.read, min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
