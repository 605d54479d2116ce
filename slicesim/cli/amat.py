"""Commands on checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import FILE, Checkpoint, GroupOption, JsonOption, SafetensorsOut, amat_app
from slicesim.cli.console import heed_interrupt, print_json, print_table, progress_bar


@amat_app.command("report")
def amat_report(
    checkpoint: Checkpoint,
    pairs: Annotated[str, typer.Option(help="Bit pairs, high/low, with commas.")] = "8/4,6/3,4/2",
    group: GroupOption = 32,
    all_: Annotated[bool, typer.Option("--all", help="All float tensors of two axes or more.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Result folder [default: results/NAME-amat of the file].", readable=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Relative MSE and SQNR of AMAT and its alternatives on the routed experts' weights."""
    from slicesim.amat.pairs import parse_pairs
    from slicesim.amat.study import Survey
    from slicesim.report.amat import overall_table, worst_table
    from slicesim.report.folder import check_free

    chosen = parse_pairs(pairs, group)
    folder = out or Path("results") / f"{checkpoint.resolve().stem}-amat"
    check_free(folder)
    survey = Survey(checkpoint, everything=all_)
    with progress_bar("reading", len(survey.matrices)) as progress:
        study = survey.run(chosen, progress)
    heed_interrupt()
    study.save(folder)
    if json:
        print_json(study.describe())
        return
    print_table(overall_table(study))
    print_table(worst_table(study))
    typer.echo(f"written: {folder}/ (summary.json, errors.csv, errors.png, errors.svg)")


@amat_app.command("pack")
def amat_pack(
    checkpoint: Checkpoint,
    out: SafetensorsOut,
    high: Annotated[int, typer.Option(help="Bits with both slices.")] = 8,
    low: Annotated[int, typer.Option(help="Bits of the MSB slice.")] = 4,
    group: GroupOption = 32,
) -> None:
    """Write the routed experts as MSB and LSB slices; other weights are left out."""
    from slicesim.amat.pack import Packing
    from slicesim.amat.pairs import parse_pair

    packing = Packing(checkpoint, out, parse_pair(high, low, group))
    with progress_bar("packing", len(packing.experts)) as progress:
        packing.run(progress)
    heed_interrupt()
    done = packing.amounts()
    typer.echo(
        f"written: {out} ({done.experts} experts, {done.weights:,} weights, "
        f"MSB {done.msb_bytes:,} B, LSB {done.lsb_bytes:,} B, {high}/{low} bits)"
    )


@amat_app.command("unpack")
def amat_unpack(
    packed: Annotated[Path, typer.Argument(help="File written by amat pack.", **FILE)],
    out: SafetensorsOut,
    precision: Annotated[str, typer.Option(help="high (both slices) or low (MSB slice alone).")] = "high",
) -> None:
    """Write the experts' weights that the slices stand for, in the checkpoint's own dtype."""
    from slicesim.amat.unpack import Unpacking

    unpacking = Unpacking(packed, out, precision)
    with progress_bar("unpacking", len(unpacking.header.experts)) as progress:
        weights = unpacking.run(progress)
    heed_interrupt()
    typer.echo(f"written: {out} ({len(unpacking.header.experts)} experts, {weights:,} weights, {precision} precision)")
