"""The application, its groups of commands, and the options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slicesim.version import __version__

app = typer.Typer(
    help="Cycle-approximate simulation of Mixture-of-Experts inference from flash on a phone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
trace_app = typer.Typer(help="Import, inspect, check and synthesise routing traces.", no_args_is_help=True)
app.add_typer(trace_app, name="trace")
amat_app = typer.Typer(help="Quantise a checkpoint's experts: error report, pack, unpack.", no_args_is_help=True)
app.add_typer(amat_app, name="amat")

#: Required paths: opened, and complained of, where they are read.
FILE: Any = {"show_default": False, "readable": False}

Config = Annotated[Path, typer.Argument(help="Scenario file (YAML).", **FILE)]
ModelOption = Annotated[str | None, typer.Option(help="Shipped model, or a model YAML.")]
TraceOption = Annotated[str | None, typer.Option(help="Trace file: Parquet, or any format that can be imported.")]
PolicyOption = Annotated[str | None, typer.Option(help="Preset, or file.py:Class with your own eviction strategy.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one key; may be given again.")
]
Checkpoint = Annotated[Path, typer.Argument(help="Safetensors file, or a folder of them.", **FILE)]
GroupOption = Annotated[int, typer.Option(help="Weights that share a scale and a zero point.")]
SafetensorsOut = Annotated[Path, typer.Option("-o", "--out", help="File to write (.safetensors).", **FILE)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"slicesim {__version__}")
        raise typer.Exit
