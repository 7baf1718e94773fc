"""The gateway as an ASGI application; it imports no torch and holds no job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from itertools import chain
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from server.api import events, generate, jobs, models, status, video
from server.api.auth import KEYED
from server.api.body_limit import BodyLimit
from server.api.errors import PROBLEM_SCHEMA, Problem, documented
from server.api.services import Services
from server.api.validation import problem_of
from server.api.wall import Wall
from server.api.webhooks import webhook_sender
from server.settings import Settings

_log = logging.getLogger(__name__)
_KEYED_MODULES = (generate, jobs, events, video, models)
_OPEN_MODULES = (status,)
_DESCRIPTION = "Text in, video out. Errors are application/problem+json with a stable `code`."


def create_app(settings: Settings) -> FastAPI:
    """The application; ValueError when the settings name a model or a Redis that cannot be used."""
    services = Services.create(settings)
    app = FastAPI(
        title="rushes",
        version=version("rushes"),
        description=_DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # the page would load its scripts from somebody else's server
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    for module in _KEYED_MODULES:
        app.include_router(module.router, dependencies=KEYED, responses=documented("unauthorized"))
    for module in _OPEN_MODULES:
        app.include_router(module.router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_seconds)
    app.add_middleware(Wall, hosts=settings.hosts)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RedisError, _answer_redis)
    _describe_problems(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    duties = [asyncio.create_task(services.tend(), name="tending the queue")]
    if (sender := webhook_sender(services)) is not None:
        duties.append(asyncio.create_task(sender.run(), name="sending webhooks"))
    for duty in duties:
        duty.add_done_callback(_tell_if_failed)
    try:
        yield
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.wait(duties)
        await services.client.aclose()


def _tell_if_failed(duty: asyncio.Task[None]) -> None:
    if not duty.cancelled() and (error := duty.exception()) is not None:
        _log.error("this gateway has stopped %s", duty.get_name(), exc_info=error)


async def _answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_of(error).response()


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = ", ".join(_methods_at(request))
        detail = f"{request.method[:16]} does not apply here; {allowed} does"
        return Problem("method_not_allowed", detail, headers={"Allow": allowed}).response()
    if error.status_code == 404:
        return Problem("not_found", "there is nothing at this path; GET /openapi.json lists what there is").response()
    return Problem("internal_error", "the server failed").response()


def _methods_at(request: Request) -> list[str]:
    """All methods of the path: each route knows only its own, and the framework tells those of the first."""
    methods: set[str] = set()
    for route in chain(request.app.routes, *(module.router.routes for module in (*_KEYED_MODULES, *_OPEN_MODULES))):
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"]):
            methods |= route.methods or set()
    return sorted(methods)


async def _answer_redis(_: Request, error: Exception) -> Response:
    # The error may tell an address, so that only the log gets it.
    _log.warning("the queue failed a request: %s: %s", type(error).__name__, error)
    return Problem(
        "queue_unavailable", "the queue cannot be reached just now; try again", headers={"Retry-After": "2"}
    ).response()


def _describe_problems(app: FastAPI) -> None:
    """Put the problem document where the routes' descriptions point, and take away the framework's own error shape."""
    original = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            components = schema["components"]["schemas"]
            components["Problem"] = PROBLEM_SCHEMA
            for name in ("HTTPValidationError", "ValidationError"):
                components.pop(name, None)
            for path in schema["paths"].values():
                for operation in path.values():
                    if "HTTPValidationError" in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described
