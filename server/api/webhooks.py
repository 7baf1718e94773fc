"""Webhooks as the gateway has them: which URLs may be asked for, and the sender that runs beside the routes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from server.api.errors import Problem, field_problem
from server.api.services import Services
from server.api.views import view_of
from server.outbound.destination import OutboundPolicy, destination_of
from server.outbound.errors import UrlRefusedError
from server.outbound.fetcher import Fetcher
from server.settings import Settings
from server.webhooks.outbox import Outbox
from server.webhooks.sender import WebhookSender


def outbound_policy(settings: Settings) -> OutboundPolicy:
    """What the settings let webhooks call."""
    return OutboundPolicy(
        allow_http=settings.webhook_allow_http,
        allowed_networks=tuple(ip_network(text) for text in settings.webhook_networks),
        ports=frozenset(settings.webhook_ports) or None,
    )


def checked_webhook(url: str | None, services: Services, *, tenant: str) -> str | None:
    """The URL, if the end of a job may be told there; Problem when not, or when nothing could be signed."""
    if url is None:
        return None
    if services.webhook_secrets is None or not services.webhook_secrets.secrets_of(tenant):
        raise Problem(
            "webhooks_unavailable",
            "webhook_url is set, but this server has no secret to sign your webhooks with; leave it out, "
            "or ask the operator for one",
            field="webhook_url",
        )
    try:
        destination_of(url, outbound_policy(services.settings))
    except UrlRefusedError as error:
        raise field_problem("webhook_url", str(error)) from None
    return url


def webhook_sender(services: Services) -> WebhookSender | None:
    """The sender of this process; None where there is nothing to sign with."""
    if services.webhook_secrets is None:
        return None

    async def body_of(job_id: str) -> dict[str, Any] | None:
        record = await services.queue.get(job_id)
        return None if record is None else (await view_of(record, services)).model_dump(mode="json")

    return WebhookSender(
        Outbox(services.client, prefix=services.queue.prefix),
        Fetcher(outbound_policy(services.settings)),
        body_of=body_of,
        secrets_of=services.webhook_secrets.secrets_of,
    )
