"""docs/cli.md: every command, its arguments and options, from the typer application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperArgument

from slicesim.cli import app

_INTRODUCTION = """# Command line

*Written by `python docs/tools/references.py` from the commands themselves.*

`slicesim COMMAND --help` says the same in the terminal. Exit codes: 0 done, 2 a mistake that you can put right (one
line says what, where and what to do), 130 interrupted by Ctrl-C. Results go to standard output, warnings and progress
to standard error. `--json` prints the whole result as JSON and nothing else.

"""


def cli_page() -> str:
    """Return docs/cli.md."""
    commands = list(_commands("slicesim", typer.main.get_command(app)))
    lines = ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_text(command.help)} |" for name, command in commands]
    for name, command in commands:
        lines += ["", *_section(name, command)]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield commands with their full names, those of a group after it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for own_name, own in inner.items():
        yield from _commands(f"{name} {own_name}", own)


def _section(name: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    arguments = [_argument(one) for one in command.params if isinstance(one, TyperArgument)]
    yield f"## {name}"
    yield ""
    yield _text(command.help)
    yield ""
    yield "```text"
    yield " ".join([name, *arguments, "[OPTIONS]"])
    yield "```"
    rows = [_row(one, context) for one in command.params]
    if rows:
        yield from ("", "| argument or option | meaning |", "|---|---|", *rows)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + "..." * (argument.nargs != 1)
    return str(name if argument.required else f"[{name}]")


def _row(parameter: Any, context: Any) -> str:
    written, meaning = parameter.get_help_record(context)
    if isinstance(parameter, TyperArgument):
        written = _argument(parameter)
    return f"| `{written}` | {_text(meaning)} |"


def _text(help_text: str) -> str:
    """One line of Markdown."""
    return " ".join(help_text.split()).replace("``", "`").replace("|", "\\|").replace("<", "&lt;")
