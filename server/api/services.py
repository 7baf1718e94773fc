"""What the routes work with: the queue, the files, the model's card and the keys."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import redis.asyncio as redis
from fastapi import Depends, Request
from redis.exceptions import RedisError

from engines.card import ModelCard, read_card
from engines.catalog import find_model
from engines.cost import CostModel
from server.artifacts.filesystem import FilesystemArtifacts
from server.keys.ring import KeyRing
from server.pool import pool_of
from server.queue.client import JobQueue
from server.queue.connection import connect
from server.queue.types import Ahead, JobRecord, WorkerNotice, WorkerState
from server.settings import Settings
from server.webhooks.secrets_file import SecretsFile

_log = logging.getLogger(__name__)
_REAP_EVERY_S = 1.0
_TURNS_BETWEEN_WEIGHTS = 5  # a queue that was started again may have forgotten them, and nothing tells us of it


@dataclass(slots=True)
class Crew:
    """The workers as last seen; admission and estimates read it instead of asking Redis each time."""

    notices: list[WorkerNotice] = field(default_factory=list)
    cost_model: CostModel = field(default_factory=CostModel)

    @property
    def ready(self) -> int:
        """Workers that take jobs."""
        return sum(notice.state is WorkerState.READY for notice in self.notices)


@dataclass(slots=True)
class OpenStreams:
    """How many event streams this process holds; each takes a connection to Redis from the others' share."""

    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a request needs; one for the whole process. Without `keys` everybody is let in."""

    settings: Settings
    card: ModelCard
    client: redis.Redis
    queue: JobQueue
    artifacts: FilesystemArtifacts
    crew: Crew
    streams: OpenStreams
    keys: KeyRing | None
    webhook_secrets: SecretsFile | None

    @classmethod
    def create(cls, settings: Settings) -> Services:
        """Open what the settings name; nothing is sent to Redis yet."""
        if settings.redis_url is None:
            raise ValueError("the gateway needs a Redis: set REDIS_URL, or start everything with `rushes serve`")
        client = connect(settings.redis_url, allow_without_password=settings.allow_passwordless_redis)
        card = read_card(find_model(settings.model))
        pool = pool_of(card.name)
        secrets_file = settings.webhook_secrets_file
        queue = JobQueue(
            client,
            pool=pool,
            max_queued_jobs=settings.queue_max_jobs,
            max_queued_seconds=settings.queue_max_seconds,
            retention_s=settings.retention_seconds,
            idempotency_s=settings.retention_seconds,
        )
        return cls(
            settings=settings,
            card=card,
            client=client,
            queue=queue,
            artifacts=FilesystemArtifacts(settings.artifacts_dir / pool),
            crew=Crew(),
            streams=OpenStreams(),
            keys=None if settings.api_keys_file is None else KeyRing(settings.api_keys_file),
            webhook_secrets=secrets_file and SecretsFile(secrets_file),
        )

    async def look_at_crew(self) -> None:
        """See who works now, and how fast they say they are."""
        self.crew.notices = await self.queue.workers()
        told = [notice.cost_model for notice in self.crew.notices if notice.cost_model]
        if told:
            try:
                self.crew.cost_model = CostModel.from_json(told[-1])
            except ValueError:
                # A worker of another version, in the middle of an upgrade; the last model is good enough meanwhile.
                _log.debug("a worker tells of its speed in a way this gateway does not know")

    async def tend(self) -> None:
        """For ever: give jobs of lost workers back to the queue, see who works, and tell the queue tenants' weights."""
        reachable, told = True, {}
        for turn in itertools.count():
            weights = self.keys.weights() if self.keys else {}
            try:
                await self.queue.reap()
                await self.look_at_crew()
                if weights != told or turn % _TURNS_BETWEEN_WEIGHTS == 0:
                    await self.queue.set_weights(weights)
                    told = weights
            except RedisError as error:
                if reachable:
                    _log.warning("the queue cannot be reached: %s", type(error).__name__)
                reachable = False
            else:
                if not reachable:
                    _log.info("the queue can be reached again")
                reachable = True
            await asyncio.sleep(_REAP_EVERY_S)

    def estimate(self, record: JobRecord, ahead: Ahead | None) -> float | None:
        """Predicted seconds until the job's video is there, with what is `ahead` of it; None when it is over."""
        if record.finished_at is not None:
            return None
        if ahead is not None:
            return round(ahead.seconds / max(1, self.crew.ready) + record.cost, 1)
        progress = record.progress
        left = 1.0 - progress.step / progress.num_steps if progress and progress.num_steps else 1.0
        return round(record.cost * left, 1)


async def services_of(request: Request) -> Services:
    """The process's services, for routes."""
    return cast(Any, request.app).state.services


TheServices = Annotated[Services, Depends(services_of)]
