"""The command line: one function per command, no logic."""

from __future__ import annotations

import signal
import sys

import typer

from slicesim.cli import amat, device, live, policies, report, trace
from slicesim.cli.app import app
from slicesim.cli.console import Interrupted, hush, interrupt
from slicesim.errors import UserError

__all__ = ["amat", "app", "device", "live", "main", "policies", "report", "trace"]


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C is 130."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    sys.unraisablehook = hush
    try:
        app()
    except BaseException as error:
        if Interrupted.signal:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            typer.echo("slicesim: interrupted", err=True)
            sys.exit(128 + Interrupted.signal)
        if not isinstance(error, (UserError, OSError)):
            raise
        message = str(error)
        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}"
        typer.echo(f"slicesim: {message}", err=True)
        sys.exit(2)
