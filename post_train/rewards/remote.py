"""A reward in another process, called over HTTP: every failure stops the run with the reward's and the film's name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import ValidationError

from post_train.rewards.base import Dimension, Film, RewardError, Score
from post_train.rewards.schema import (
    MOST_FILMS,
    SCHEMA_VERSION,
    Problem,
    ScoreRequest,
    ScoreResponse,
    ScorerFacts,
    Versioned,
)
from post_train.rewards.wire import Transport, on_wire

Answer = TypeVar("Answer", bound=ScorerFacts)

_MOST_ANSWER = 16 * 2**20  # bytes
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0  # seconds between tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds: to connect, for a whole answer, and for how long a refused connection or a 503 is tried again.

    Nothing else is tried again: a scorer that takes too long would only be asked for the same work twice.
    """

    connect: float = 5.0
    answer: float = 600.0
    retry_for: float = 60.0

    def __post_init__(self) -> None:
        if not (self.connect > 0 and self.answer > 0 and self.retry_for >= 0):
            raise ValueError(f"patience is counted in positive seconds, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time as a run feels it; a test brings its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class RemoteReward:
    """A Reward whose scorer answers at `url`. Its name, digest and dimension are asked for once, when it is made.

    `batch` films go in a request. With `Transport.PATH` they are left in `shared`, which the service sees as well.
    RewardError when the scorer cannot be reached, answers late, in another version, for another number of films, with
    what is not a number, or with another digest than at first: then its scores no longer compare.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: Patience | None = None,
        batch: int = 8,
        transport: Transport = Transport.PNG,
        shared: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 1 <= batch <= MOST_FILMS:
            raise ValueError(f"a request holds 1 to {MOST_FILMS} films, got batch {batch}")
        if (transport is Transport.PATH) != (shared is not None):
            raise ValueError(f"a shared folder belongs to transport path and to no other, got {transport} and {shared}")
        self.patience, self.clock = patience or Patience(), clock or Clock()
        self.batch, self.transport, self.shared = batch, transport, shared
        self.name = self.url = url.rstrip("/")
        limits = httpx.Timeout(self.patience.answer, connect=self.patience.connect)
        self._client = httpx.Client(base_url=self.url, timeout=limits, trust_env=False)
        facts = self._facts()
        self.name, self.digest = f"{facts.name} at {self.url}", facts.digest
        self.dimension: Dimension = facts.dimension

    def close(self) -> None:
        """Lets go of the connection."""
        self._client.close()

    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film, in order."""
        scores: list[Score] = []
        for start in range(0, len(films), self.batch):
            scores.extend(self._batch(films[start : start + self.batch]))
        return scores

    def _facts(self) -> ScorerFacts:
        answer = self._ask("GET", "/v1/reward", None, "any film")
        return self._checked(ScorerFacts, answer, "any film")

    def _batch(self, films: Sequence[Film]) -> list[Score]:
        names = ", ".join(f.name for f in films)
        with ExitStack() as stack:
            sent = [stack.enter_context(on_wire(f, self.transport, self.shared)) for f in films]
            request = ScoreRequest(schema_version=SCHEMA_VERSION, films=sent)
            content = request.model_dump_json(exclude_none=True).encode()
            answer = self._ask("POST", "/v1/scores", content, names)
        response = self._checked(ScoreResponse, answer, names)
        if response.digest != self.digest:
            raise RewardError(
                self.name, names, f"the scorer was {self.digest} when the run began and now is {response.digest}"
            )
        if len(response.scores) != len(films):
            raise RewardError(self.name, names, f"{len(response.scores)} scores for {len(films)} films")
        for film, score in zip(films, response.scores, strict=True):
            if not all(math.isfinite(v) for v in (score.value, score.noise, *score.parts.values())):
                raise RewardError(self.name, film.name, f"it is {score.value} with noise {score.noise}, {score.parts}")
        return [Score(value=s.value, noise=s.noise, parts=s.parts) for s in response.scores]

    def _ask(self, method: str, path: str, content: bytes | None, films: str) -> bytes:
        """The body of a 200; tries again on a refused connection or a 503 until `retry_for` is over."""
        began, pause = self.clock.now(), _FIRST_PAUSE
        while True:
            try:
                status, body = self._once(method, path, content, films)
                why = f"it answers 503: {_reason(body)}"
            except httpx.ConnectTimeout as error:
                raise RewardError(self.name, films, f"no connection within {self.patience.connect} s") from error
            except httpx.ConnectError as error:
                status, body, why = 503, b"", f"the connection fails: {error}"
            except httpx.TimeoutException as error:
                raise RewardError(self.name, films, f"no answer within {self.patience.answer} s") from error
            except httpx.HTTPError as error:
                raise RewardError(self.name, films, f"it broke off: {error or type(error).__name__}") from error
            if status == httpx.codes.OK:
                return body
            if status != httpx.codes.SERVICE_UNAVAILABLE:
                raise RewardError(self.name, _film_of(body) or films, f"it answers {status}: {_reason(body)}")
            if self.clock.now() - began + pause > self.patience.retry_for:
                raise RewardError(self.name, films, f"{why}, and did so for {self.patience.retry_for} s")
            self.clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, method: str, path: str, content: bytes | None, films: str) -> tuple[int, bytes]:
        """One exchange: status and body. The time for an answer holds for the whole of it, not for each piece."""
        until = self.clock.now() + self.patience.answer
        headers = {"content-type": "application/json"} if content is not None else {}
        body = bytearray()
        with self._client.stream(method, path, content=content, headers=headers) as response:
            for piece in response.iter_bytes():
                body += piece
                if self.clock.now() > until:
                    raise RewardError(self.name, films, f"no whole answer within {self.patience.answer} s")
                if len(body) > _MOST_ANSWER:
                    raise RewardError(self.name, films, f"its answer is longer than {_MOST_ANSWER} bytes")
        return response.status_code, bytes(body)

    def _checked(self, kind: type[Answer], body: bytes, films: str) -> Answer:
        try:
            version = Versioned.model_validate_json(body).schema_version
            if version != SCHEMA_VERSION:
                raise RewardError(self.name, films, f"it speaks schema version {version}, this is {SCHEMA_VERSION}")
            return kind.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "all of it"
            why = f"its answer does not fit schema version {SCHEMA_VERSION}: {where}: {first['msg']}"
            raise RewardError(self.name, films, why) from error


def _problem(body: bytes) -> Problem | None:
    try:
        return Problem.model_validate_json(body)
    except ValidationError:
        return None


def _reason(body: bytes) -> str:
    problem = _problem(body)
    return problem.reason if problem else body[:300].decode(errors="replace") or "nothing more"


def _film_of(body: bytes) -> str | None:
    problem = _problem(body)
    return problem.film if problem else None
