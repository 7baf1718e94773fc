"""Settings come from the environment, are bounded, documented and frozen."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import Settings, SettingsError, load_settings, unknown_variables

# A change here is a change for everybody who runs the server: say so in the commit.
DEFAULTS = {
    "engine_trusted": None,
    "allow_anyone": False,
    "allow_passwordless_redis": False,
    "allowed_hosts": (),
    "api_keys_file": None,
    "body_timeout_seconds": 20.0,
    "drain_seconds": 8.0,
    "event_ping_seconds": 15.0,
    "gateways": 1,
    "host": "127.0.0.1",
    "log_format": "text",
    "log_level": "info",
    "max_batch": 1,
    "max_body_bytes": 65536,
    "max_event_streams": 500,
    "model": "diorama",
    "port": 8000,
    "queue_max_jobs": 1000,
    "queue_max_seconds": 3600.0,
    "redis_url": None,
    "retention_seconds": 86400,
    "state_dir": Path("state"),
    "threads": None,
    "webhook_allow_http": False,
    "webhook_networks": (),
    "webhook_ports": (),
    "webhook_secrets_file": None,
    "workers": 1,
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine leaks into a test."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RUSHES_{name.upper()}", raising=False)


def test_names_and_defaults_are_frozen() -> None:
    """The settings and their defaults are exactly these."""
    assert dict(Settings()) == DEFAULTS


def test_every_setting_is_documented() -> None:
    """Each says what it is for."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_environment_is_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """RUSHES_ variables set, command line options override, None leaves alone."""
    monkeypatch.setenv("RUSHES_PORT", "9000")
    monkeypatch.setenv("RUSHES_MAX_BATCH", "2")
    monkeypatch.setenv("REDIS_URL", "redis://localhost/1")
    settings = load_settings(port=9001, max_batch=None)
    assert (settings.port, settings.max_batch, settings.redis_url) == (9001, 2, "redis://localhost/1")


def test_a_child_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to_environment writes, Settings reads."""
    settings = load_settings(
        redis_url="unix:///a%20b",
        allowed_hosts="a.example, b.example",
        state_dir=tmp_path,
        threads=3,
        log_level="error",
        host="::",
        allow_anyone=True,
        api_keys_file=tmp_path / "keys.json",
        webhook_secrets_file=tmp_path / "secrets.json",
        webhook_networks="10.1.0.0/16,fd12::/16",
        webhook_ports="443,8443",
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", ""),
        ("HOST", ""),
        ("MODEL", " "),
        ("STATE_DIR", ""),
        ("WORKERS", "0"),
        ("QUEUE_MAX_SECONDS", "nan"),
        ("QUEUE_MAX_SECONDS", "inf"),
        ("RETENTION_SECONDS", "1"),
        ("LOG_LEVEL", "loud"),
        ("ALLOW_PASSWORDLESS_REDIS", "perhaps"),
        ("API_KEYS_FILE", ""),
        ("API_KEYS_FILE", " "),
        ("ALLOW_ANYONE", ""),
    ],
)
def test_a_bad_value_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The variable and the value seen are named."""
    monkeypatch.setenv(f"RUSHES_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    sentence = str(caught.value)
    assert f"RUSHES_{name}" in sentence
    assert repr(value) in sentence or repr(value.strip()) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_redis_url_is_none(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """`REDIS_URL=` names no Redis, so that the embedded Valkey is used."""
    monkeypatch.setenv("REDIS_URL", blank)
    assert load_settings().redis_url is None


def test_a_mistyped_variable_is_told() -> None:
    """RUSHES_PROT is most likely RUSHES_PORT; a known one is not remarked on."""
    told = unknown_variables({"RUSHES_PROT": "1", "RUSHES_PORT": "1", "RUSHES_XYZZY": "1", "REDIS_URL": "", "PATH": ""})
    assert len(told) == 2
    assert "RUSHES_PROT" in told[0]
    assert "did you mean RUSHES_PORT?" in told[0]
    assert "RUSHES_XYZZY" in told[1]


def test_hosts_are_loopbacks_own_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback only loopback's names are answered to; elsewhere any, or those that are listed."""
    assert "localhost" in Settings().hosts
    assert "127.0.0.2" in Settings(host="127.0.0.2").hosts
    assert Settings(host="0.0.0.0").hosts == ()  # noqa: S104
    assert load_settings(allowed_hosts="Films.example").hosts[0] == "films.example"


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers together leave one core free, and each has at least one thread."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(9)))
    assert Settings(workers=2).engine_threads == 4
    assert Settings(workers=64).engine_threads == 1
    assert Settings(workers=2, threads=7).engine_threads == 7


def test_a_password_is_not_shown() -> None:
    """The repr of the settings, which may be logged, leaves the Redis URL out."""
    assert "hunter2" not in repr(load_settings(redis_url="redis://:hunter2@localhost"))


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.0.2.1", "films.example", "::ffff:192.0.2.1", "127.0.0.1.example"],  # noqa: S104
)
def test_strangers_are_let_in_on_purpose_only(host: str, tmp_path: Path) -> None:
    """Beyond loopback there is a keys file, or somebody has said that none is wanted; the sentence tells both ways."""
    with pytest.raises(SettingsError) as caught:
        load_settings(host=host)
    for told in (host, "RUSHES_API_KEYS_FILE", "rushes keys new", "127.0.0.1", "RUSHES_ALLOW_ANYONE"):
        assert told in str(caught.value)
    assert load_settings(host=host, allow_anyone=True).host == host
    assert load_settings(host=host, api_keys_file=tmp_path / "keys.json").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    """Who is on the machine is trusted as before."""
    assert load_settings(host=host).host == host


def test_a_relative_keys_file_stays_the_same_for_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are whole, whatever folder a child begins in."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(api_keys_file="keys.json").api_keys_file == tmp_path / "keys.json"
