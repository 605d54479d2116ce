"""Commands on traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import FILE, JsonOption, trace_app
from slicesim.cli.console import check_target, print_json, print_table, progress_bar


@trace_app.command("import")
def trace_import(
    source: Annotated[Path, typer.Argument(help="File or folder to import.", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Trace to write (Parquet).", **FILE)],
    format: Annotated[str | None, typer.Option(help="Format; found by itself where left out.")] = None,
    model: Annotated[str | None, typer.Option(help="Shipped model, or a model YAML, that was recorded.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Experts per token, if not recorded.")] = None,
    score_kind: Annotated[str | None, typer.Option(help="softmax or renormalised, if not recorded.")] = None,
    source_note: Annotated[str | None, typer.Option("--source", help="Where the recording comes from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the recording.")] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Mark the trace as synthetic.")] = False,
) -> None:
    """Import a recorded routing log as a trace."""
    from slicesim.trace.importers import ImportOptions, import_trace
    from slicesim.trace.store import write_trace

    check_target(out, source)
    options = ImportOptions(format, model, top_k, score_kind, source_note, licence, synthetic)
    trace = import_trace(source, options)
    write_trace(out, trace.header, trace.blocks())
    header = trace.header
    typer.echo(
        f"written: {out} ({len(trace.block)} tokens, {len(header.layers)} layers, {header.experts} experts, "
        f"top-{header.top_k}, {header.score_kind} scores{', SYNTHETIC' if header.synthetic else ''})"
    )


@trace_app.command("info")
def info_command(
    trace: Annotated[Path, typer.Argument(help="Trace file.", **FILE)],
    model: Annotated[str | None, typer.Option(help="Model, for formats that do not record it.")] = None,
    json: JsonOption = False,
) -> None:
    """Show a trace's geometry, phases, reuse, skew and working sets."""
    from slicesim.report.tables import info_table
    from slicesim.trace import load_trace
    from slicesim.trace.info import trace_info

    info = trace_info(load_trace(trace, model=model))
    if json:
        print_json(info)
    else:
        print_table(info_table(info))


@trace_app.command("validate")
def validate_command(
    trace: Annotated[Path, typer.Argument(help="Trace file.", **FILE)],
    model: Annotated[str | None, typer.Option(help="Model, for formats that do not record it.")] = None,
) -> None:
    """List what is wrong with a trace, row by row; exit code 2 if anything is."""
    from slicesim.trace.importers import ImportOptions
    from slicesim.trace.validate import validate_trace

    faults = validate_trace(trace, ImportOptions(model=model))
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(2)
    typer.echo(f"{trace}: valid")


@trace_app.command("fit")
def fit_command(
    traces: Annotated[list[Path], typer.Argument(help="Recorded traces of one model.", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Profile to write (YAML).", **FILE)],
    model: Annotated[str | None, typer.Option(help="Shipped model, or a model YAML, that was recorded.")] = None,
    fill_layers: Annotated[
        bool, typer.Option("--fill-layers", help="Make up the model's layers that were not recorded.")
    ] = False,
    adjacent_reuse: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Reuse at lag 1 over all layers, with --fill-layers.")
    ] = None,
    srp_16: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="SRP(16) over all layers, with --fill-layers.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Fit a statistical twin to recorded routing and write it as a profile."""
    from slicesim.trace.twin.calibrate import ROUNDS
    from slicesim.trace.twin.make import fit_profile
    from slicesim.trace.twin.profile import write_profile

    for trace in traces:
        check_target(out, trace)
    total = ROUNDS if srp_16 is None else 3 * ROUNDS
    with progress_bar("calibrating", total) as progress:
        rounds = iter(range(1, total + 1))
        profile = fit_profile(
            traces,
            out.stem,
            model=model,
            fill_layers=fill_layers,
            adjacent_reuse=adjacent_reuse,
            srp_16=srp_16,
            seed=seed,
            progress=lambda: progress(next(rounds)),
        )
    write_profile(out, profile)
    typer.echo(
        f"written: {out} ({profile.model}, {len(profile.recorded_layers)} recorded of {len(profile.layers)} layers, "
        f"fitted to {profile.fitted_tokens} tokens in {profile.fitted_requests} requests)"
    )


@trace_app.command("complete")
def complete_command(
    trace: Annotated[Path, typer.Argument(help="Trace that holds only the top-k.", **FILE)],
    profile: Annotated[Path, typer.Argument(help="Profile of the same model (YAML).", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Trace to write (Parquet).", **FILE)],
    model: Annotated[str | None, typer.Option(help="Model, for formats that do not record it.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Add imputed logits to a recorded trace, so that policies may reroute on it."""
    from slicesim.trace import load_trace
    from slicesim.trace.store import write_trace
    from slicesim.trace.twin.complete import complete

    check_target(out, trace)
    check_target(out, profile)
    header, blocks = complete(load_trace(trace, model=model), profile, seed)
    write_trace(out, header, blocks)
    typer.echo(f"written: {out} (logits beyond the top-{header.top_k} are IMPUTED)")


@trace_app.command("synth")
def synth_command(
    profile: Annotated[Path, typer.Argument(help="Profile of a model's routing (YAML).", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Trace to write (Parquet).", **FILE)],
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each request.")] = 320,
    requests: Annotated[int, typer.Option(min=1, help="Number of requests.")] = 1,
    prompt_fraction: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of a request that is prompt.")] = 0.6,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make a synthetic trace from a profile."""
    from slicesim.trace.store import write_trace
    from slicesim.trace.synth import synthesise

    check_target(out, profile)
    trace = synthesise(profile, tokens=tokens, seed=seed, requests=requests, prompt_fraction=prompt_fraction)
    write_trace(out, trace.header, trace.blocks())
    typer.echo(f"written: {out} ({requests} x {tokens} tokens, SYNTHETIC)")
