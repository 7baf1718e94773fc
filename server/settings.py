"""Every setting of the server, read from the environment: its default, its bounds and what it is for."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engines.signing import KEY_VARIABLE

PREFIX = "RUSHES_"
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names the variable, the value and the rule."""


class Settings(BaseSettings):
    """The server's settings; each is the environment variable RUSHES_<NAME>, `redis_url` is also REDIS_URL."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, populate_by_name=True, str_strip_whitespace=True
    )

    host: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        "127.0.0.1",
        description="Address to listen on; beyond loopback only with api_keys_file, or with allow_anyone.",
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    model: Annotated[str, StringConstraints(min_length=1)] = Field(
        "diorama",
        description="The model to serve: a name of the catalogue, a folder in diffusers' layout, or an engine package.",
    )
    engine_trusted: str | None = Field(
        None,
        description="Public keys whose engine packages are run: PEM files, with a colon between them. By default the "
        "key of the user that runs the server.",
    )
    state_dir: Path = Field(
        Path("state"), description="Folder for the embedded Valkey's data, finished videos and the lock."
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of tenants and the hashes of their API keys, as `rushes keys new` writes it. Without one "
        "everybody is one tenant and needs no key.",
    )
    allow_anyone: bool = Field(
        default=False,
        description="Listen beyond loopback without API keys: everybody who reaches the server may use it.",
    )
    webhook_secrets_file: Path | None = Field(
        None,
        description="File of the secrets that webhooks are signed with, a JSON object of tenants and lists of secrets; "
        "`python -m server.webhooks.signing` makes one. Without it no webhook can be asked for.",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Let webhooks go to http URLs too, where anybody on the way can read them."
    )
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Private networks that webhooks may go to, comma separated, such as 10.1.0.0/16. "
        "Without any: only the public internet.",
    )
    webhook_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (),
        description="Ports that webhooks may go to, comma separated. Without any: 443 and 8443, with http 80 and 8080.",
    )
    redis_url: str | None = Field(
        None,
        repr=False,  # it may hold a password
        validation_alias=AliasChoices("REDIS_URL", "RUSHES_REDIS_URL"),
        description="Redis or Valkey to use (redis://, rediss://, unix://); none: an embedded Valkey.",
    )
    allow_passwordless_redis: bool = Field(
        default=False,
        description="Accept a Redis beyond loopback without a password. Anybody who reaches it owns the queue.",
    )
    gateways: int = Field(
        1, ge=1, le=64, description="Gateway processes on one port. One answers some hundreds of requests a second."
    )
    workers: int = Field(1, ge=1, le=64, description="Worker processes; each holds the model once.")
    threads: int | None = Field(
        None, ge=1, le=512, description="CPU threads of each worker's engine; default: the cores but one, shared out."
    )
    max_batch: int = Field(
        1,
        ge=1,
        le=64,
        description="Most videos of one shape that a worker makes together; every batch costs as if it were full, "
        "so that a video never depends on its company. More than 1 pays on a GPU.",
    )
    queue_max_jobs: int = Field(1000, ge=1, le=1_000_000, description="Waiting jobs before 429 queue_full.")
    queue_max_seconds: float = Field(
        3600.0,
        gt=0,
        le=1e8,
        allow_inf_nan=False,
        description="Predicted engine seconds that may wait before queue_full.",
    )
    retention_seconds: int = Field(
        86_400, ge=60, le=31_536_000, description="How long a finished job and its video are kept."
    )
    max_body_bytes: int = Field(65_536, ge=1024, le=16_777_216, description="Largest request body.")
    body_timeout_seconds: float = Field(
        20.0, gt=0, le=600, allow_inf_nan=False, description="Longest time a client may take to send its body."
    )
    event_ping_seconds: float = Field(
        15.0, gt=0, le=300, allow_inf_nan=False, description="Seconds between keep-alive comments of an event stream."
    )
    max_event_streams: int = Field(500, ge=1, le=1000, description="Event streams open at once in a gateway.")
    drain_seconds: float = Field(
        8.0, ge=0, le=3600, allow_inf_nan=False, description="How long a stopping worker may go on with its video."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names to answer to, comma separated, besides loopback's. "
        "Without any: every name, or when listening on loopback only loopback's.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line of text, or one JSON object, a record.")

    @field_validator("allowed_hosts", "webhook_networks", "webhook_ports", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name.strip().lower() for name in value.split(",") if name.strip())
        return value

    @field_validator("webhook_networks")
    @classmethod
    def _require_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)  # its ValueError says what is wrong
        return value

    @field_validator("webhook_ports")
    @classmethod
    def _require_ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [port for port in value if not 1 <= port <= 65535]
        if wrong:
            raise ValueError(f"{wrong[0]} is no port; use 1 to 65535")
        return value

    @field_validator("redis_url", mode="before")
    @classmethod
    def _blank_is_none(cls, value: Any) -> Any:
        # `REDIS_URL=` in a shell or a compose file is the usual way to say that there is none.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("state_dir", mode="before")
    @classmethod
    def _require_folder(cls, value: Any) -> Any:
        # An empty path would be the current folder, and that would be filled with our files.
        if isinstance(value, str) and not value.strip():
            raise ValueError("name a folder, or leave it unset for ./state")
        return value

    @field_validator("api_keys_file", "webhook_secrets_file", mode="before")
    @classmethod
    def _require_file(cls, value: Any) -> Any:
        # Taken for none, a variable that came out empty would let everybody in.
        if isinstance(value, str) and not value.strip():
            raise ValueError("name the file, or leave it unset to do without")
        return value

    @property
    def engine_threads(self) -> int:
        """CPU threads of one worker: every core but one, shared out; two threads on two busy cores lose to one."""
        if self.threads is not None:
            return self.threads
        return max(1, (_usable_cores() - 1) // self.workers)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names to answer to; empty means any.

        A page of another site can aim a name of its own at loopback, but never loopback's names at itself.
        """
        if self.allowed_hosts:
            return (*self.allowed_hosts, *_LOOPBACK_NAMES)
        return (*_LOOPBACK_NAMES, self.host) if _is_loopback(self.host) else ()

    @property
    def artifacts_dir(self) -> Path:
        return self.state_dir / "artifacts"

    def to_environment(self) -> dict[str, str]:
        """The variables from which a child process reads these very settings."""
        variables = {}
        for name, value in self:
            if value is not None and value != ():
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                variables["REDIS_URL" if name == "redis_url" else f"{PREFIX}{name.upper()}"] = text
        return variables


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides` that are not None on top; SettingsError in one sentence."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    _require_keys_for_strangers(settings)
    whole = {name: value.expanduser().absolute() for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(update=whole)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """One sentence for each RUSHES_ variable that is no setting: most often a typing error."""
    # The second is a builder's, who may well start a server in the same shell.
    known = {*(f"{PREFIX}{name.upper()}" for name in Settings.model_fields), KEY_VARIABLE}
    sentences = []
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "it is ignored."
            sentences.append(f"environment variable {name} is not a setting of rushes: {hint}")
    return sentences


def _require_keys_for_strangers(settings: Settings) -> None:
    if settings.api_keys_file is None and not settings.allow_anyone and not _is_loopback(settings.host):
        raise SettingsError(
            f"on RUSHES_HOST {settings.host[:80]!r} strangers may reach the server, and it has no API keys: set "
            "RUSHES_API_KEYS_FILE (`rushes keys new TENANT --file FILE` makes one), listen on 127.0.0.1, or let "
            "everybody in with RUSHES_ALLOW_ANYONE=true"
        )


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _usable_cores() -> int:
    """Cores that this process may use, by its affinity and by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    variable = "REDIS_URL" if name.upper().endswith("REDIS_URL") else f"{PREFIX}{name.upper()}"
    seen = str(first["input"])[:80]
    rule = first["msg"].removeprefix("Value error, ")
    return f"setting {variable} cannot be {seen!r}: {rule[0].lower()}{rule[1:]}"
