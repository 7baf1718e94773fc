"""Serves a reward over HTTP by the schema of `schema.py`: our own judges, or an upstream scorer in its own environment.

`python -m post_train.rewards.service --reward ta|mq|vq --role reward --port N` serves one of ours; `--list` tells which
upstream scorers there are adapters for, and which of them can be run here.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from post_train.rewards.base import Reward, RewardError, scored
from post_train.rewards.schema import (
    MOST_BYTES,
    SCHEMA_VERSION,
    Problem,
    ScoreRequest,
    ScoreResponse,
    ScorerFacts,
    Versioned,
    WireScore,
)
from post_train.rewards.upstream import UPSTREAM, Sources, UpstreamMissingError, load_upstream
from post_train.rewards.wire import WireError, off_wire

_WAITING = 4  # requests; beyond them a client is told to come again


def _problem(status: int, reason: str, film: str | None = None) -> JSONResponse:
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse(Problem(reason=reason[:5000], film=film).model_dump(), status, headers)


class _Counter:
    """How many requests wait for the scorer or are with it; only the event loop touches it."""

    def __init__(self) -> None:
        self.waiting = 0


def _scores(reward: Reward, request: ScoreRequest, shared: Path | None, one_at_a_time: Lock) -> JSONResponse:
    """Decodes and scores; a film that cannot be read is the client's fault, anything else the scorer's."""
    films = []
    for sent in request.films:
        try:
            films.append(off_wire(sent, shared))
        except WireError as error:
            return _problem(422, str(error), sent.name)
    try:
        with one_at_a_time:
            found = scored(reward, films)
    except RewardError as error:
        return _problem(500, str(error), error.film)
    except ValueError as error:
        return _problem(422, str(error))
    response = ScoreResponse(
        schema_version=SCHEMA_VERSION,
        name=reward.name,
        digest=reward.digest,
        dimension=reward.dimension,
        scores=[WireScore(value=s.value, noise=s.noise, parts=s.parts) for s in found],
    )
    return JSONResponse(response.model_dump(mode="json"))


async def _body(request: Request) -> bytes | None:
    """The whole body, or None when it is longer than MOST_BYTES."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def app_of(reward: Reward, *, shared: Path | None = None) -> FastAPI:
    """The service of one reward; films on a shared disk are read from the folder `shared` and from nowhere else."""
    app = FastAPI(title="reward", openapi_url=None)
    one_at_a_time, counter = Lock(), _Counter()

    @app.get("/v1/reward")
    async def facts() -> ScorerFacts:
        return ScorerFacts(
            schema_version=SCHEMA_VERSION, name=reward.name, digest=reward.digest, dimension=reward.dimension
        )

    @app.post("/v1/scores")
    async def scores(request: Request) -> Response:
        if counter.waiting >= _WAITING:
            return _problem(503, f"{_WAITING} requests wait already")
        counter.waiting += 1
        try:
            body = await _body(request)
            if body is None:
                return _problem(413, f"a request has at most {MOST_BYTES} bytes; send fewer films")
            version = Versioned.model_validate_json(body).schema_version
            if version != SCHEMA_VERSION:
                return _problem(400, f"this service speaks schema version {SCHEMA_VERSION}, the request {version}")
            asked = await run_in_threadpool(ScoreRequest.model_validate_json, body)
            return await run_in_threadpool(_scores, reward, asked, shared, one_at_a_time)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return _problem(400, f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}")
        finally:
            counter.waiting -= 1

    return app


def _own(name: str, role: str, weights: Path | None) -> Reward:
    """One of our own judges; imported only here, for an upstream scorer's environment need not hold torch as we do."""
    from post_train.rewards.judges import WEIGHTS, judge_from  # noqa: PLC0415
    from post_train.rewards.roles import Role  # noqa: PLC0415

    folder = weights or WEIGHTS
    if name == "vq":
        from post_train.rewards.visual import VisualQuality  # noqa: PLC0415

        return VisualQuality(Role(role), weights=folder)
    if name == "mq":
        from post_train.rewards.motion import MotionQuality  # noqa: PLC0415

        return MotionQuality(judge_from(folder / Role(role)))
    from post_train.rewards.diorama import TextAlignment  # noqa: PLC0415

    return TextAlignment(judge_from(folder / Role(role)))


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m post_train.rewards.service", description="Serves one reward.")
    parser.add_argument("--reward", choices=["ta", "mq", "vq", *UPSTREAM], help="which reward")
    parser.add_argument("--role", choices=["reward", "validation", "held-out"], default="reward", help="which of ours")
    parser.add_argument("--weights", type=Path, help="a folder of weights, other than what comes with the scorer")
    parser.add_argument("--checkout", type=Path, help="an upstream scorer's source, where no package has it")
    parser.add_argument("--config", type=Path, help="an upstream scorer's configuration, other than its own")
    parser.add_argument("--shared", type=Path, help="a folder that clients leave films in")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (loopback by default)")
    parser.add_argument("--port", type=int, default=8090, help="0 takes any free port and tells which")
    parser.add_argument("--list", action="store_true", help="tell which upstream scorers can be run here")
    arguments = parser.parse_args(given)
    if arguments.reward is None and not arguments.list:
        parser.error("name a --reward, or ask for the --list")
    return arguments


def _sources(arguments: argparse.Namespace) -> Sources:
    return Sources(weights=arguments.weights, checkout=arguments.checkout, config=arguments.config)


def main(given: Sequence[str]) -> int:
    """The command; returns its exit status."""
    arguments = _arguments(given)
    if arguments.list:
        for adapter in UPSTREAM.values():
            sys.stdout.write(f"{adapter.name}: {adapter.status()}\n")
        return 0
    try:
        if arguments.reward in UPSTREAM:
            reward = load_upstream(arguments.reward, _sources(arguments))
        else:
            reward = _own(arguments.reward, arguments.role, arguments.weights)
    except (UpstreamMissingError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    listening = socket.create_server((arguments.host, arguments.port))
    host, port = listening.getsockname()[:2]
    sys.stdout.write(f"{reward.name} ({reward.digest}) at http://{host}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app_of(reward, shared=arguments.shared), log_level="warning")
    asyncio.run(uvicorn.Server(config).serve([listening]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
