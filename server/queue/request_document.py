"""A generation request as the JSON document that travels through the queue, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, TypeAlias, get_args

from engines.types import GenerationRequest, VideoSpec

VideoFormat: TypeAlias = Literal["mp4", "webm"]


def to_document(request: GenerationRequest, video_format: VideoFormat) -> dict[str, Any]:
    """The fields of the request and the file format asked for, ready for `NewJob.request`."""
    return {"generation": asdict(request), "format": video_format}


def from_document(document: dict[str, Any]) -> tuple[GenerationRequest, VideoFormat]:
    """The request and file format of a document; ValueError when it is not one that `to_document` made."""
    try:
        fields = dict(document["generation"])
        spec = VideoSpec(**fields.pop("spec"))
        request = GenerationRequest(spec=spec, **fields)
        video_format = document["format"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the job's request document has not the fields of a generation request: {error}") from error
    if video_format not in get_args(VideoFormat):
        raise ValueError(f"video format {video_format!r} is unknown; use one of {', '.join(get_args(VideoFormat))}")
    return request, video_format
