"""Commands on live models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicesim.cli.app import FILE, JsonOption, SetOption, app
from slicesim.cli.console import check_target, heed_interrupt, policy_names, print_json, print_table, progress_bar, warn

DtypeOption = Annotated[str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")]
DeviceMapOption = Annotated[str | None, typer.Option(help="Where layers go (auto, cpu, ...); needs accelerate.")]
OffloadOption = Annotated[
    Path | None, typer.Option(help="Folder for layers that memory does not hold.", readable=False)
]
MemoryOption = Annotated[
    float | None, typer.Option(min=0, metavar="GB", help="Main memory for weights; the rest is off-loaded.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of torch.")]


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
    dtype: DtypeOption = "auto",
    device_map: DeviceMapOption = None,
    offload_folder: OffloadOption = None,
    max_memory: MemoryOption = None,
    threads: ThreadsOption = None,
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
    simulations = prepare_loops(subject, config, policy_names(policies), parse_assignments(set_ or []))
    amat = simulations[0].scenario.settings.amat
    bank = choose_bank(subject, amat, weights=weights, packed=packed, keep_gb=keep)
    study = run_study(subject, texts, simulations, bank, at_once=whole_batch, watch=progress_bar)
    heed_interrupt()
    study.save(folder)
    found = study.describe()
    for row in found["rows"]:
        warn(row["warnings"], row["policy"])
    if json:
        print_json(found)
        return
    print_table(quality_table(found))
    typer.echo(f"written: {folder}/ (summary.json, a trace of each policy's run)")


@app.command("capture")
def capture_command(
    model: Annotated[str, typer.Argument(help="Model folder, or an id of the hub.", show_default=False)],
    prompts: Annotated[Path, typer.Option(help="Text, one prompt a line, or JSON lines (.jsonl).", **FILE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Trace to write (Parquet).", **FILE)],
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Decode tokens of each request, at most.")] = 128,
    max_prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Cut longer prompts to so many tokens.")] = None,
    prefill_chunk: Annotated[int, typer.Option(min=1, help="Prompt tokens in one forward pass.")] = 512,
    dtype: DtypeOption = "auto",
    device_map: DeviceMapOption = None,
    offload_folder: OffloadOption = None,
    max_memory: MemoryOption = None,
    threads: ThreadsOption = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the trace [default: the model's].")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an unfinished capture left.")] = False,
) -> None:
    """Run a live model on prompts and write the trace of its routers; goes on where it was after a kill."""
    from slicesim.live.capture import CaptureOptions, capture
    from slicesim.live.load import LoadOptions
    from slicesim.live.prompts import read_prompts
    from slicesim.report.label import leading_kind

    check_target(out, prompts)
    load = LoadOptions(dtype, device_map, offload_folder, max_memory)
    options = CaptureOptions(max_new_tokens, max_prompt_tokens, prefill_chunk, threads, licence, load)
    read = read_prompts(prompts)
    with progress_bar("capturing", len(read.prompts)) as progress:
        captured = capture(model, read, out, options, restart=restart, progress=progress)
    heed_interrupt()
    header = captured.header
    if captured.resumed:
        typer.echo(f"{captured.resumed} of {captured.requests} requests were there from an earlier call")
    typer.echo(
        f"written: {out} ({leading_kind(header.model_dump())}, {captured.requests} requests, {captured.tokens} tokens, "
        f"{len(header.layers)} layers, {header.experts} experts, top-{header.top_k}, {header.score_kind} scores)"
    )
