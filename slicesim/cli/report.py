"""Commands on results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import FILE, JsonOption, app
from slicesim.cli.console import print_json, print_table
from slicesim.errors import UserError


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="Result folders of runs; several are compared.", **FILE)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write.", readable=False)] = Path("report.html"),
) -> None:
    """Write one HTML page about one run or several: complete in itself, without the network."""
    from slicesim.report.page import write_report

    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    write_report(results, out)
    typer.echo(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Result folder of a run, or a summary.json.", **FILE)],
    second: Annotated[Path, typer.Argument(help="The other one.", **FILE)],
    all_: Annotated[bool, typer.Option("--all", help="Show every figure that differs.")] = False,
    json: JsonOption = False,
) -> None:
    """Explain two results: which keys of the scenario differ, and which figures."""
    from slicesim.report.diff import Diff, diff_table, shown_differences
    from slicesim.report.saved import read_summary, whole_results

    with whole_results(first, second):
        found = Diff.of(read_summary(first), read_summary(second))
    if json:
        print_json(found.describe())
        return
    if found.differences:
        print_table(diff_table(found, (str(first), str(second)), all_))
        left = len(found.differences) - len(shown_differences(found, all_))
        if left:
            typer.echo(f"{left} more figures differ: --all shows them")
    for note in found.notes:
        typer.echo(note)
