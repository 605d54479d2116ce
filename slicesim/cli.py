"""The command line: one function per command, no logic."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from slicesim.errors import UserError
from slicesim.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from slicesim.simulation import Progress

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


@app.command()
def run(
    config: Config,
    trace: TraceOption = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    engine: Annotated[str | None, typer.Option(help="fast (compiled, the default) or reference (SimPy).")] = None,
    set_: SetOption = None,
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
    _warn(simulation.warnings)
    with _progress("replaying", simulation.tokens) as progress:
        result = simulation.run(progress)
    _heed_interrupt()
    result.save(folder)
    _warn(result.summary["warnings"][len(simulation.warnings) :])
    if json:
        sys.stdout.write(result.to_json())
        return
    _print(run_table(result.summary))
    typer.echo(f"written: {folder}/ (summary.json, tokens.parquet, timeline.json for ui.perfetto.dev, overview.png)")


@app.command()
def compare(
    config: Config,
    policies: Annotated[str, typer.Option(help="Presets or file.py:Class, with commas; gains are against the first.")],
    trace: TraceOption = None,
    model: ModelOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Run one scenario under several policies and print one table."""
    from slicesim.report.tables import comparison, comparison_table
    from slicesim.scenario import parse_assignments
    from slicesim.simulation import prepare_comparison

    simulations = prepare_comparison(
        config, _words(policies), model=model, trace=trace, set=parse_assignments(set_ or [])
    )
    results = []
    for simulation in simulations:
        label = simulation.policy.label
        _warn(simulation.warnings, label)
        with _progress(label, simulation.tokens) as progress:
            results.append(simulation.run(progress).summary)
        _warn(results[-1]["warnings"][len(simulation.warnings) :], label)
    if json:
        _print_json(comparison(results))
    else:
        _print(comparison_table(results))


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
    jobs: Annotated[int, typer.Option(min=1, help="Replays at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME-mrc of the config].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Miss rates and flash traffic over cache sizes: one pass for LRU, replays for other policies."""
    from slicesim.curves import miss_rate_curves
    from slicesim.report.curves import mrc_notes, mrc_tables
    from slicesim.report.folder import check_free
    from slicesim.scenario import parse_assignments
    from slicesim.simulation import prepare_comparison

    folder = out or Path("results") / f"{config.stem}-mrc"
    check_free(folder)
    simulations = prepare_comparison(
        config, _words(policies), model=model, trace=trace, set=parse_assignments(set_ or [])
    )
    requests = [simulation.request() for simulation in simulations]
    with _progress("replaying", len(requests) * points) as progress:
        study = miss_rate_curves(requests, points, from_gb=from_, to_gb=to, jobs=jobs, progress=progress)
    _heed_interrupt()
    description = study.describe(simulations[0].describe())
    study.save(folder, description)
    if json:
        _print_json(description)
        return
    for table in mrc_tables(description):
        _print(table)
    for note in mrc_notes(description):
        typer.echo(note)
    typer.echo(f"written: {folder}/ (summary.json, mrc.parquet, mrc.png)")


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep file (YAML): a scenario and a grid.", **FILE)],
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME of the sweep].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a grid of scenarios into one table; a second call runs only what is missing."""
    from slicesim.report.sweep import sweep_json, sweep_table, sweep_warnings
    from slicesim.sweeps import prepare_sweep

    prepared = prepare_sweep(config, out)
    with _progress("sweeping", len(prepared.tasks)) as progress:
        outcome = prepared.run(jobs, progress)
    _heed_interrupt()
    _warn(sweep_warnings(outcome))
    if json:
        _print_json(sweep_json(outcome))
        return
    _print(sweep_table(outcome))
    typer.echo(f"{len(prepared.tasks)} points: {outcome.found} found finished, {outcome.ran} run")
    typer.echo(f"written: {outcome.folder}/ (sweep.parquet, points/)")


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
    with _progress("replaying", 0) as progress:
        found = vary(scenario, progress)
    _heed_interrupt()
    found.save(folder)
    _warn(found.head["warnings"])
    if json:
        _print_json(found.describe())
        return
    _print(sensitivity_table(found))
    for note in sensitivity_notes(found):
        typer.echo(note)
    typer.echo(f"written: {folder}/ (summary.json, tornado.png)")


@app.command()
def quality(
    model: Annotated[str, typer.Argument(help="Live model: a folder, or an id of the hub.", show_default=False)],
    text: Annotated[
        list[Path] | None, typer.Option(help="Text file to be scored; may be given again.", readable=False)
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file, as of capture: each prompt is a text to be scored.", **FILE)
    ] = None,
    policies: Annotated[
        str, typer.Option("--policies", "--policy", help="Presets or file.py:Class, with commas.")
    ] = "lru-high,lru-low,dbsc,slicemoe",
    config: Annotated[Path, typer.Option(help="Scenario file (YAML).", **FILE)] = Path("hwconfigs/mobile.yaml"),
    set_: SetOption = None,
    tokens: Annotated[int, typer.Option(help="Tokens of each request, prompt included.")] = 192,
    prompt_tokens: Annotated[int, typer.Option(help="Those of them that are prompt.")] = 64,
    requests: Annotated[int, typer.Option(help="Requests of each file, at most.")] = 4,
    weights: Annotated[str, typer.Option(help="amat, or original: full precision whatever was decided.")] = "amat",
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Leave experts in their files and read them one at a time.")
    ] = False,
    packed: Annotated[
        Path | None,
        typer.Option(help="AMAT slices, as amat pack writes them, to be read in place of quantising.", **FILE),
    ] = None,
    keep: Annotated[
        float | None, typer.Option(min=0, metavar="GB", help="Rebuilt expert weights kept in memory [default: all].")
    ] = None,
    whole_batch: Annotated[
        bool, typer.Option("--whole-batch", help="Score each text as one batch too (which hides damage).")
    ] = False,
    dtype: Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="Where layers go (auto, cpu, ...); needs accelerate.")] = None,
    offload_folder: Annotated[
        Path | None, typer.Option(help="Folder for layers that memory does not hold.", readable=False)
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(min=0, metavar="GB", help="Main memory for weights; the rest is off-loaded.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Result folder [default: results/NAME-quality of the model].", readable=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a live model token by token with policies in its loop: perplexity, misses, time and energy in one table."""
    from slicesim.live import require_live

    require_live()
    from slicesim.live.describe import source_id
    from slicesim.live.load import LoadOptions
    from slicesim.quality.study import choose_bank, load_subject, prepare_loops, run_study, set_threads
    from slicesim.quality.texts import Cut, read_texts
    from slicesim.report.folder import check_free
    from slicesim.report.quality import quality_table
    from slicesim.scenario import parse_assignments

    set_threads(threads)
    folder = out or Path("results") / f"{source_id(model).rpartition('/')[2]}-quality"
    check_free(folder)
    cut = Cut(tokens, prompt_tokens, requests)
    subject = load_subject(model, LoadOptions(dtype, device_map, offload_folder, max_memory), lazy=lazy)
    texts = read_texts(text or [], prompts, subject.live.tokenizer, cut, subject.context)
    simulations = prepare_loops(subject, config, _words(policies), parse_assignments(set_ or []))
    amat = simulations[0].scenario.settings.amat
    bank = choose_bank(subject, amat, weights=weights, packed=packed, keep_gb=keep)
    study = run_study(subject, texts, simulations, bank, at_once=whole_batch, watch=_progress)
    _heed_interrupt()
    study.save(folder)
    found = study.describe()
    for row in found["rows"]:
        _warn(row["warnings"], row["policy"])
    if json:
        _print_json(found)
        return
    _print(quality_table(found))
    typer.echo(f"written: {folder}/ (summary.json, a trace of each policy's run)")


@app.command()
def validate(
    out: Annotated[Path, typer.Option(help="Page to write.", readable=False)] = Path("docs/validation.md"),
    data: Annotated[Path | None, typer.Option(help="Folder of reference files that do not ship.", **FILE)] = None,
    devices: Annotated[
        Path | None, typer.Option(help="Folder of device files [default: the shipped ones].", readable=False)
    ] = None,
) -> None:
    """Regenerate the page of errors: measured and simulated figures, row by row."""
    from slicesim.report.devices import SHIPPED
    from slicesim.validation.page import all_tables, render, summary

    if data is not None and not data.is_dir():
        raise UserError(f"{data}: no such folder; leave --data out to keep the last figures of rows that need it")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    tables = all_tables(devices or SHIPPED, data)
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
        _print_json(found)
    else:
        _print(devices_table(found))


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from slicesim.scenario.schema import scenario_schema

    _print_json(scenario_schema())


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
    with _progress("reading", len(survey.matrices)) as progress:
        study = survey.run(chosen, progress)
    _heed_interrupt()
    study.save(folder)
    if json:
        _print_json(study.describe())
        return
    _print(overall_table(study))
    _print(worst_table(study))
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
    with _progress("packing", len(packing.experts)) as progress:
        packing.run(progress)
    _heed_interrupt()
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
    with _progress("unpacking", len(unpacking.header.experts)) as progress:
        weights = unpacking.run(progress)
    _heed_interrupt()
    typer.echo(f"written: {out} ({len(unpacking.header.experts)} experts, {weights:,} weights, {precision} precision)")


@app.command("capture")
def capture_command(
    model: Annotated[str, typer.Argument(help="Model folder, or an id of the hub.", show_default=False)],
    prompts: Annotated[Path, typer.Option(help="Text, one prompt a line, or JSON lines (.jsonl).", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Trace to write (Parquet).", **FILE)],
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Decode tokens of each request, at most.")] = 128,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Cut longer prompts to so many tokens.")] = None,
    prefill_chunk: Annotated[int, typer.Option(min=1, help="Prompt tokens in one forward pass.")] = 512,
    dtype: Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="Where layers go (auto, cpu, ...); needs accelerate.")] = None,
    offload_folder: Annotated[
        Path | None, typer.Option(help="Folder for layers that memory does not hold.", readable=False)
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(min=0, metavar="GB", help="Main memory for weights; the rest is off-loaded.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the trace [default: the model's].")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an unfinished capture left.")] = False,
) -> None:
    """Run a live model on prompts and write the trace of its routers; goes on where it was after a kill."""
    from slicesim.live.capture import CaptureOptions, capture
    from slicesim.live.load import LoadOptions
    from slicesim.live.prompts import read_prompts
    from slicesim.report.label import leading_kind

    _check_target(out, prompts)
    load = LoadOptions(dtype, device_map, offload_folder, max_memory)
    options = CaptureOptions(max_new_tokens, max_prompt_tokens, prefill_chunk, threads, licence, load)
    read = read_prompts(prompts)
    with _progress("capturing", len(read.prompts)) as progress:
        captured = capture(model, read, out, options, restart=restart, progress=progress)
    _heed_interrupt()
    header = captured.header
    if captured.resumed:
        typer.echo(f"{captured.resumed} of {captured.requests} requests were there from an earlier call")
    typer.echo(
        f"written: {out} ({leading_kind(header.model_dump())}, {captured.requests} requests, {captured.tokens} tokens, "
        f"{len(header.layers)} layers, {header.experts} experts, top-{header.top_k}, {header.score_kind} scores)"
    )


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

    _check_target(out, source)
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
        _print_json(info)
    else:
        _print(info_table(info))


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
        _check_target(out, trace)
    total = ROUNDS if srp_16 is None else 3 * ROUNDS
    with _progress("calibrating", total) as progress:
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

    _check_target(out, trace)
    _check_target(out, profile)
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

    _check_target(out, profile)
    trace = synthesise(profile, tokens=tokens, seed=seed, requests=requests, prompt_fraction=prompt_fraction)
    write_trace(out, trace.header, trace.blocks())
    typer.echo(f"written: {out} ({requests} x {tokens} tokens, SYNTHETIC)")


class _Interrupted(BaseException):
    """Ctrl-C or a request to end; not KeyboardInterrupt, which the command-line library swallows without a word.

    ``signal`` remembers it: compiled modules that are just being imported may lose it, or make another error of it.
    """

    signal: ClassVar[int] = 0


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C is 130."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except BaseException as error:
        if _Interrupted.signal:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            typer.echo("slicesim: interrupted", err=True)
            sys.exit(128 + _Interrupted.signal)
        if not isinstance(error, (UserError, OSError)):
            raise
        message = str(error)
        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}"
        typer.echo(f"slicesim: {message}", err=True)
        sys.exit(2)


def _interrupt(number: int, _: object) -> None:
    _Interrupted.signal = number
    raise _Interrupted


def _heed_interrupt() -> None:
    if _Interrupted.signal:
        raise _Interrupted


@contextmanager
def _progress(label: str, total: int) -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def tick(done: int) -> None:
            _heed_interrupt()
            bar.update(task, completed=done)

        yield tick


def _warn(warnings: Iterable[str], label: str = "") -> None:
    for warning in warnings:
        typer.echo(f"warning: {label}{': ' * bool(label)}{warning}", err=True)


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))


def _check_target(out: Path, source: Path) -> None:
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file with --out")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out}: is the file to read from; choose another --out")


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError("--policies: give at least one policy, for example lru-high,dbsc")
    return words
