"""What commands share: interruption, progress, printing."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from slicesim.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from slicesim.simulation import Progress


class Interrupted(BaseException):
    """Ctrl-C or a request to end; not KeyboardInterrupt, which the command-line library swallows without a word.

    ``signal`` remembers it: compiled modules that are just being imported may lose it, or make another error of it.
    """

    signal: ClassVar[int] = 0


def interrupt(number: int, _: object) -> None:
    """Handle a signal: end the command."""
    Interrupted.signal = number
    raise Interrupted


def hush(unraisable: sys.UnraisableHookArgs) -> None:
    """Say nothing of a signal that arrived in a callback, where it ends nothing: ``heed_interrupt`` finds it."""
    if unraisable.exc_type is not Interrupted:
        sys.__unraisablehook__(unraisable)


def heed_interrupt() -> None:
    """End the command where a signal was lost on the way."""
    if Interrupted.signal:
        raise Interrupted


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def tick(done: int) -> None:
            heed_interrupt()
            bar.update(task, completed=done)

        yield tick


def warn(warnings: Iterable[str], label: str = "") -> None:
    """Write warnings to standard error."""
    for warning in warnings:
        typer.echo(f"warning: {label}{': ' * bool(label)}{warning}", err=True)


def print_table(table: Any) -> None:
    """Print a table, as wide as the terminal or 200 columns."""
    from rich.console import Console

    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    import json

    typer.echo(json.dumps(value, indent=2))


def check_target(out: Path, source: Path) -> None:
    """Refuse to write to a folder, or over the file that is read."""
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out}: is the file to read from; choose another --out")


def policy_names(text: str) -> list[str]:
    """Split names at commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError("--policies: give at least one policy, for example lru-high,dbsc")
    return words
