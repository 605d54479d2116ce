"""Commands that replay traces on devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import FILE, Config, JsonOption, ModelOption, PolicyOption, SetOption, TraceOption, app
from slicesim.cli.console import heed_interrupt, policy_names, print_json, print_table, progress_bar, warn
from slicesim.errors import UserError


@app.command()
def run(
    config: Config,
    trace: TraceOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    engine: Annotated[str | None, typer.Option(help="fast (compiled, the default) or reference (SimPy).")] = None,
    set_: SetOption = None,
    headroom: Annotated[
        bool, typer.Option("--headroom", help="Bound the flash bytes from below too (about a second).")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME of the config].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Replay a trace on a device and write a result folder."""
    from slicesim.preparation import prepare
    from slicesim.report.folder import check_free
    from slicesim.report.tables import run_table
    from slicesim.scenario import Scenario, parse_assignments

    chosen = [*(set_ or []), *([] if engine is None else [f"schedule.engine={engine}"])]
    scenario = Scenario.load(config, model=model, trace=trace, policy=policy, assignments=parse_assignments(chosen))
    folder = out or Path("results") / config.stem
    check_free(folder)
    simulation = prepare(scenario)
    warn(simulation.warnings)
    with progress_bar("replaying", simulation.tokens) as progress:
        result = simulation.run(progress, headroom)
    heed_interrupt()
    result.save(folder)
    warn(result.summary["warnings"][len(simulation.warnings) :])
    if json:
        sys.stdout.write(result.to_json())
        return
    print_table(run_table(result.summary, result.intervals))
    typer.echo(f"written: {folder}/ (summary.json, tokens.parquet, timeline.json for ui.perfetto.dev, overview.png)")
    typer.echo(f"see it:  slicesim report {folder}")


@app.command()
def compare(
    config: Config,
    policies: Annotated[
        str, typer.Option(help="Presets or file.py:Class, with commas; gains are against the first. Or: all.")
    ],
    trace: TraceOption = None,
    model: ModelOption = None,
    set_: SetOption = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at once [default: one per core for all, else 1].")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Result folder [default: results/NAME-compare for all, else none].", readable=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run one scenario under several policies: one table, and with ``all`` or --out a folder with a Pareto plot."""
    from slicesim.comparison import ALL, prepare
    from slicesim.report.comparison import comparison_notes, comparison_table
    from slicesim.report.folder import check_free
    from slicesim.scenario import parse_assignments
    from slicesim.workers import cores

    names = policy_names(policies)
    everything = ALL in names
    folder = out or (Path("results") / f"{config.stem}-compare" if everything else None)
    if folder is not None:
        check_free(folder)
    prepared = prepare(config, names, model=model, trace=trace, set=parse_assignments(set_ or []))
    said = {simulation.policy.label: simulation.warnings for simulation in prepared.simulations}
    for label, warnings in said.items():
        warn(warnings, label)
    with progress_bar("replaying", prepared.tokens) as progress:
        compared = prepared.run(jobs or (cores() if everything else 1), progress)
    heed_interrupt()
    for entry in compared.entries:
        label = entry.summary["policy"]
        warn(entry.summary["warnings"][len(said[label]) :], label)
    if folder is not None:
        compared.save(folder)
    if json:
        print_json(compared.describe())
        return
    print_table(comparison_table(compared))
    for note in comparison_notes(compared):
        typer.echo(note)
    if folder is not None:
        typer.echo(f"written: {folder}/ (summary.json, comparison.parquet, pareto.png)")


@app.command()
def mrc(
    config: Config,
    policies: Annotated[
        str, typer.Option(help="Presets or file.py:Class, with commas.")
    ] = "lru-high,lru-slices,dbsc,belady",
    trace: TraceOption = None,
    model: ModelOption = None,
    set_: SetOption = None,
    points: Annotated[int, typer.Option(min=2, help="Cache sizes of the table, and of the replays.")] = 24,
    from_: Annotated[
        float | None, typer.Option("--from", metavar="GB", help="Smallest cache [default: one batch].")
    ] = None,
    to: Annotated[float | None, typer.Option(metavar="GB", help="Largest cache [default: all experts].")] = None,
    headroom: Annotated[bool, typer.Option("--headroom", help="Draw the lower bound on flash bytes too.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Replays at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME-mrc of the config].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Miss rates and flash traffic over cache sizes: one pass for LRU, replays for other policies."""
    from slicesim.comparison import prepare
    from slicesim.curves import miss_rate_curves
    from slicesim.report.curves import mrc_notes, mrc_tables
    from slicesim.report.folder import check_free
    from slicesim.scenario import parse_assignments

    folder = out or Path("results") / f"{config.stem}-mrc"
    check_free(folder)
    prepared = prepare(config, policy_names(policies), model=model, trace=trace, set=parse_assignments(set_ or []))
    warn([f"left out: {policy}: {reason}" for policy, reason in prepared.left_out.items()])
    simulations = prepared.simulations
    requests = [simulation.request() for simulation in simulations]
    with progress_bar("replaying", len(requests) * points) as progress:
        study = miss_rate_curves(
            requests, points, from_gb=from_, to_gb=to, jobs=jobs, headroom=headroom, progress=progress
        )
    heed_interrupt()
    description = study.describe(simulations[0].describe())
    study.save(folder, description)
    if json:
        print_json(description)
        return
    for table in mrc_tables(description):
        print_table(table)
    for note in mrc_notes(description):
        typer.echo(note)
    typer.echo(f"written: {folder}/ (summary.json, mrc.parquet, mrc.png)")


@app.command()
def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="Sweep file (YAML): a scenario, and a grid or a search.", **FILE)
    ],
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Instead of --jobs: tcp://HOST:PORT of a dask scheduler, or local:N processes."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME of the sweep].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run many scenarios, a grid or a search, into one table; a second call runs only what is missing."""
    from slicesim.report.sweep import sweep_json, sweep_table, sweep_warnings
    from slicesim.sweeps import prepare_sweep

    prepared = prepare_sweep(config, out)
    with progress_bar("sweeping", prepared.size) as progress:
        outcome = prepared.run(jobs, progress, cluster)
    heed_interrupt()
    warn(sweep_warnings(outcome))
    if json:
        print_json(sweep_json(outcome))
        return
    print_table(sweep_table(outcome))
    typer.echo(f"{len(outcome.frame)} points: {outcome.found} found finished, {outcome.ran} run")
    typer.echo(f"written: {outcome.folder}/ ({', '.join(outcome.files)})")


@app.command()
def sensitivity(
    config: Config,
    trace: TraceOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Result folder [default: results/NAME-sensitivity of the config].", readable=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Vary each coefficient of the device over its range and show which ones the answer hangs on."""
    from slicesim.report.folder import check_free
    from slicesim.report.sensitivity import sensitivity_notes, sensitivity_table
    from slicesim.scenario import Scenario, parse_assignments
    from slicesim.sensitivity import sensitivity as vary

    scenario = Scenario.load(config, model=model, trace=trace, policy=policy, assignments=parse_assignments(set_ or []))
    folder = out or Path("results") / f"{config.stem}-sensitivity"
    check_free(folder)
    with progress_bar("replaying", 0) as progress:
        found = vary(scenario, progress)
    heed_interrupt()
    found.save(folder)
    warn(found.head["warnings"])
    if json:
        print_json(found.describe())
        return
    print_table(sensitivity_table(found))
    for note in sensitivity_notes(found):
        typer.echo(note)
    typer.echo(f"written: {folder}/ (summary.json, tornado.png)")


@app.command()
def validate(
    out: Annotated[Path, typer.Option(help="Page to write.", readable=False)] = Path("docs/validation.md"),
    data: Annotated[Path | None, typer.Option(help="Folder of reference files that do not ship.", **FILE)] = None,
    devices: Annotated[
        Path | None, typer.Option(help="Folder of device files [default: the shipped ones].", readable=False)
    ] = None,
) -> None:
    """Regenerate the page of errors: measured and simulated figures, row by row."""
    from slicesim.shipped import HWCONFIGS, shipped
    from slicesim.validation.page import all_tables, render, summary

    if data is not None and not data.is_dir():
        raise UserError(f"{data}: no such folder; leave --data out to keep the last figures of rows that need it")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    tables = all_tables(devices or shipped() / HWCONFIGS, data)
    page = render(tables, out.read_text(encoding="utf-8") if out.is_file() else "")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    for line in summary(tables):
        typer.echo(line)
    typer.echo(f"written: {out}")


@app.command()
def devices(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of scenario files [default: the shipped ones].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List devices: flash, DRAM, what computes, peak and effective bandwidth."""
    from slicesim.report.devices import devices_table, list_devices

    found = list_devices(folder)
    if json:
        print_json(found)
    else:
        print_table(devices_table(found))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to put them in.", readable=False)] = Path("."),
) -> None:
    """Copy the shipped device files and traces here, to run and to change."""
    from slicesim.shipped import HWCONFIGS, copy_shipped

    for place in copy_shipped(folder):
        typer.echo(f"written: {place}/")
    typer.echo(f"now try: slicesim run {folder / HWCONFIGS / 'mobile.yaml'}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from slicesim.scenario.schema import scenario_schema

    print_json(scenario_schema())
