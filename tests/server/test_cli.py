"""The command line finds its commands, imports none of them for the help page, and never shows a trace."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from server import cli
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def rushes(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_imports_no_command_and_no_torch() -> None:
    """`rushes --help` stays quick whatever the commands need."""
    code = (
        "import sys; from server.cli import main; sys.argv = ['rushes', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'server.commands', 'engines.commands', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
    assert "Start the whole server" in done.stdout


def test_help_lists_every_command_with_its_docstring() -> None:
    """What the help says of a command is the first line of the function that runs."""
    listed = cli.find_commands()
    shown = rushes("--help").stdout
    for name, (entry, summary) in listed.items():
        assert f"{name} " in shown
        assert summary, f"command {name} has no docstring"
        assert entry.name == name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bogus",), "bogus"),
        (("serve", "--no-such-option"), "--no-such-option"),
        (("serve", "--port", "many"), "--port"),
    ],
)
def test_a_mistake_is_told_without_a_trace(arguments: tuple[str, ...], told: str) -> None:
    """A mistyped command or option gives exit code 2 and no traceback."""
    done = rushes(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("serve", "--port", "99999"), {}, "RUSHES_PORT"),
        (("serve",), {"RUSHES_QUEUE_MAX_JOBS": "none"}, "RUSHES_QUEUE_MAX_JOBS"),
        (("serve", "--model", "/nowhere/at/all"), {}, "/nowhere/at/all"),
        (("serve", "--redis-url", "redis://192.0.2.1/0", "--model", str(ROOT)), {}, "model_index.json"),
    ],
)
def test_an_expected_error_is_one_sentence(arguments: tuple[str, ...], environment: dict[str, str], told: str) -> None:
    """A setting that cannot be used gives exit code 2 and one line that names it."""
    done = rushes(*arguments, **environment)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.startswith("rushes: ")
    assert done.stderr.count("\n") == 1


def test_version() -> None:
    """--version tells the installed version."""
    done = rushes("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "rushes")


def test_the_options_of_serve_are_frozen() -> None:
    """An option more or less is a decision; each is a setting of the same name."""
    from server.commands import serve

    names = set(inspect.signature(serve).parameters)
    assert names == {"host", "port", "model", "redis_url", "state_dir", "workers", "max_batch", "log_level"}
    assert names <= Settings.model_fields.keys()


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[EntryPoint]]:
    """A package `plugin` on the path, and the entry points that the command line finds."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "__init__.py").write_text("raise AssertionError('imported for the help page')\n")
    (tmp_path / "plugin" / "commands.py").write_text('def fly() -> None:\n    """Fly away.\n\n    Far."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    found: list[EntryPoint] = []
    monkeypatch.setattr(cli, "entry_points", lambda **_: found)
    yield found


def test_a_command_is_found_without_importing_its_package(entry_points: list[EntryPoint]) -> None:
    """Help is read from the source, so that a heavy or broken package costs the others nothing."""
    entry_points.append(EntryPoint("fly", "plugin.commands:fly", cli.GROUP))
    assert {name: summary for name, (_, summary) in cli.find_commands().items()} == {"fly": "Fly away."}


@pytest.mark.parametrize("value", ["absent.commands:fly", "plugin.absent:fly", "plugin.commands:absent"])
def test_a_command_that_is_not_installed_is_absent(entry_points: list[EntryPoint], value: str) -> None:
    """An entry point that leads nowhere is no command, rather than one that fails."""
    entry_points.append(EntryPoint("fly", value, cli.GROUP))
    assert cli.find_commands() == {}


@pytest.mark.parametrize(("missing", "told"), [("cv2", True), ("post_train.absent", False)])
def test_a_package_that_is_not_installed_is_named(missing: str, told: bool) -> None:
    """Without the extra a command says how to get it; a missing module of ours is a fault, and is shown."""
    code = (
        "import sys\n"
        "from server import cli\n"
        f"def build_app(chosen): raise ModuleNotFoundError('No module named', name={missing!r})\n"
        "cli.build_app = build_app\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if told:
        assert done.returncode == 2
        assert done.stderr.startswith("rushes: the package of the module 'cv2' is not installed")
        assert "'.[train]'" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 1
        assert "ModuleNotFoundError" in done.stderr
