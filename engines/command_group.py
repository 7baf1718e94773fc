"""A command that is a group of commands, described by the function that it is made of."""

from __future__ import annotations

from collections.abc import Callable

import typer


def command_group(describe: Callable[[], None]) -> typer.Typer:
    """The group whose help is the docstring of `describe`."""
    group = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    group.callback()(describe)
    return group
