"""The command line `rushes`: commands are found by entry points and imported only when called."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engines.errors import EngineError

GROUP = "rushes.commands"
_OUR_OWN = frozenset({"server", "engines", "post_train", "enhancer", "kernels"})


def main() -> NoReturn:
    """Run the command that the arguments name; an expected error is one sentence and exit code 2."""
    arguments = sys.argv[1:]
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        build_app(chosen)(args=arguments, prog_name="rushes")
    except (ValueError, OSError, EngineError) as error:
        if os.environ.get("RUSHES_LOG_LEVEL", "").lower() == "debug":
            raise
        _refuse(_sentence(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OUR_OWN:
            raise
        _refuse(
            f"the package of the module {error.name!r} is not installed; serving does without it, training and "
            "evaluation need .venv/bin/python -m pip install -c constraints.txt -e '.[train]'"
        )
    sys.exit(0)


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"rushes: {sentence}\n")
    sys.exit(2)


def build_app(chosen: str | None) -> typer.Typer:
    """All commands for the help page, of which only `chosen` is imported."""
    app = typer.Typer(
        name="rushes",
        help="Text-to-video server, and the post-training that makes its engines better.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, (entry, summary) in find_commands().items():
        command = entry.load() if name == chosen else _never_called
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, help=None if name == chosen else summary)(command)
    return app


def find_commands() -> dict[str, tuple[EntryPoint, str]]:
    """Each installed command's entry point and the first line of its docstring, read without importing it."""
    commands = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        source = _source_of(entry.module)
        summary = None if source is None else _summary(source, entry.attr)
        if summary is not None:
            commands[entry.name] = (entry, summary)
    return commands


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rushes {version('rushes')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What may stand before the command's name."""


def _never_called() -> None:
    raise AssertionError("only the chosen command runs, and the chosen command is imported")


def _source_of(module: str) -> Path | None:
    # Looking up the dotted name would import the parent packages, and those may be heavy.
    package, *rest = module.split(".")
    found = importlib.util.find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _summary(source: Path, function: str) -> str | None:
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return None


def _sentence(error: ValueError | OSError | EngineError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
