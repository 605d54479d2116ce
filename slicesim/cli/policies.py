"""The command that lists policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import JsonOption, app
from slicesim.cli.console import print_json, print_table
from slicesim.errors import UserError


@app.command()
def policies(
    name: Annotated[str | None, typer.Argument(help="A preset, to be shown in full.", show_default=False)] = None,
    page: Annotated[Path | None, typer.Option(help="Write the page of all policies there.", readable=False)] = None,
    json: JsonOption = False,
) -> None:
    """List the presets, or show one of them."""
    from slicesim.report.policies import describe_policy, list_policies, policies_page, policies_table, policy_table
    from slicesim.whole_file import whole_file

    if page is not None:
        if page.is_dir():
            raise UserError(f"{page}: is a folder; give the name of a file with --page")
        with whole_file(page) as partial:
            partial.write_text(policies_page(), encoding="utf-8")
        typer.echo(f"written: {page}")
    elif name is None:
        found = list_policies()
        print_json(found) if json else print_table(policies_table(found))
    else:
        described = describe_policy(name)
        print_json(described) if json else print_table(policy_table(described))
