"""Who asks: the key of a request, the tenant whose key it is, and what a stranger is told."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from server.api.errors import Problem
from server.api.services import Services, TheServices
from server.keys.file import TenantTerms

_ANYONE = TenantTerms(name="default")
_WHERE_KEYS_ARE = "Needed where the server was given API keys, as it must be to listen beyond loopback."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_WHERE_KEYS_ARE)
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="header", description="The same key, where Authorization is taken."
)


def authenticate(request: Request, services: Services) -> TenantTerms:
    """The tenant whose key the request carries; Problem `unauthorized` alike for no key and for any that opens nothing.

    The default tenant where the server has no keys.
    """
    known = caller_if_known(request, services)
    if known is None:
        raise Problem(
            "unauthorized",
            "send a valid API key, as Authorization: Bearer KEY or as X-API-Key: KEY",
            headers={"WWW-Authenticate": 'Bearer realm="rushes"'},
        )
    return known


def caller_if_known(request: Request, services: Services) -> TenantTerms | None:
    """The same, with None for a stranger."""
    if services.keys is None:
        return _ANYONE
    return services.keys.tenant_of(_sent_key(request), now=time.time())


def _sent_key(request: Request) -> bytes:
    """The key as it was sent; whatever stands there, even nothing, so that all of it takes the same way from here."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    return key.encode("latin-1")  # as headers are read


async def _require_caller(request: Request, services: TheServices) -> TenantTerms:
    return authenticate(request, services)


async def _known_caller(request: Request, services: TheServices) -> TenantTerms | None:
    return caller_if_known(request, services)


async def _tenant_of(caller: Caller) -> str:
    return caller.name


Caller = Annotated[TenantTerms, Depends(_require_caller)]
KnownCaller = Annotated[TenantTerms | None, Depends(_known_caller)]
Tenant = Annotated[str, Depends(_tenant_of)]
# For each router but the open ones. Both schemes only describe: what they find is read above, the same way everywhere.
KEYED: list[Any] = [Depends(_require_caller), Security(_BEARER), Security(_HEADER)]
