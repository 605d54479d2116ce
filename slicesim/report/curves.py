"""Miss-ratio curves: tables for the terminal, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from slicesim.report.figure import PAGE_IN, TEXT, canvas, finish
from slicesim.report.tables import Summary, provenance

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: Okabe and Ito's colour-blind safe palette, in the order in which policies take them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"

#: Method of a curve that is no policy's.
BOUND = "bound"
_BOUND_LINES = (":", "-.", "-")


def mrc_tables(study: Summary) -> list[Table]:
    """Return one table for each phase: per size, miss rate of slice requests and flash traffic of every policy."""
    tables = []
    for phase in ("prefill", "decode"):
        points = [point for point in study["points"] if point["phase"] == phase]
        if not points:
            continue
        table = Table(title=f"{_title(study)}: {phase}", caption=provenance(study))
        table.add_column("cache (GB)", justify="right")
        for curve in study["curves"]:
            if curve["method"] != BOUND:
                table.add_column(f"{curve['policy']}\nmiss %", justify="right")
                table.add_column("\nflash MB/token", justify="right")
            elif any(point["policy"] == curve["policy"] for point in points):
                table.add_column(f"{curve['policy']}\nflash MB/token", justify="right")
        cells: dict[int, list[str]] = {}
        for point in points:  # policy by policy, each by rising size
            rate, flash = point["miss_rate_slices"], point["flash_bytes_per_token"]
            row = cells.setdefault(point["capacity_bytes"], [f"{point['capacity_gb']:.4g}"])
            row += [] if point["method"] == BOUND else ["-" if rate is None else f"{100 * rate:.2f}"]
            row += [f"{flash / 1e6:,.1f}"]
        for row in cells.values():
            table.add_row(*row)
        tables.append(table)
    return tables


def mrc_notes(study: Summary) -> list[str]:
    """Return what a reader must know, one line for each policy that has something to say."""
    notes = []
    for curve in study["curves"]:
        cliff = curve["cliff_bytes"]
        parts = [f"LRU cliff at {cliff / 1e9:.4g} GB, below it nothing hits in decode"] if cliff else []
        parts += [curve["note"]] if curve["note"] else []
        notes += [f"{curve['policy']} ({curve['method']}): {'; '.join(parts)}"] if parts else []
    return notes


def mrc_plot(study: Summary, drawn: pd.DataFrame, path: Path) -> None:
    """Draw miss rate and flash traffic over cache size (PNG and SVG): decode, or prefill where nothing is decoded."""
    phase = "decode" if (drawn["phase"] == "decode").any() else "prefill"
    shown = drawn[drawn["phase"] == phase]
    with canvas(PAGE_IN, 3.2 + 0.17 * len(study["curves"]), 1, 2) as (figure, (rate, flash)):
        _lines(rate, study, shown, "miss_rate_slices", 100)
        _lines(flash, study, shown, "flash_bytes_per_token", 1e-6)
        rate.set_ylabel(f"miss rate of slice requests, {phase} (%)")
        flash.set_ylabel(f"flash read per {'decode' if phase == 'decode' else 'prompt'} token (MB)")
        if phase == "decode":
            _cliffs(rate, study)
            _cliffs(flash, study)
        figure.legend(*flash.get_legend_handles_labels(), loc="outside lower center")
        finish(figure, f"{_title(study)}, {phase}", study["trace"], path)


def _title(study: Summary) -> str:
    scenario = study["scenario"]
    amat, cache = scenario["amat"], scenario["cache"]
    per_layer = ", one cache per layer" if cache["scope"] == "layer" else ""
    return f"Miss-ratio curves of {study['model']}, {amat['high_bits']}/{amat['low_bits']} bits{per_layer}"


def _lines(axis: Axes, study: Summary, shown: pd.DataFrame, column: str, factor: float) -> None:
    for number, curve in enumerate(study["curves"]):
        own = shown[shown["policy"] == curve["policy"]]
        if curve["method"] == BOUND:
            _bound(axis, own, column, factor, _BOUND_LINES[number % len(_BOUND_LINES)])
            continue
        replayed = curve["method"] == "replay"
        axis.plot(
            own["capacity_gb"], own[column] * factor, label=_label(curve), color=_colour(number), linewidth=1.5,
            linestyle="--" if curve["offline"] else "-",
            marker=MARKERS[number % len(MARKERS)] if replayed else "", markersize=3.5,
        )  # fmt: skip
    axis.set_xlabel("cache size (GB)")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25, linewidth=0.5)


def _bound(axis: Axes, own: pd.DataFrame, column: str, factor: float, line: str) -> None:
    """Draw what no cache reaches; a bound on bytes has no miss rate. It is worked out at the marked sizes alone."""
    if own[column].notna().any():
        label = f"{own['policy'].iloc[0]} (at the marked sizes)"
        heights = own[column] * factor
        axis.plot(
            own["capacity_gb"], heights, label=label, color="#666666", linewidth=1, linestyle=line, marker=".",
            markersize=4,
        )  # fmt: skip


def _label(curve: dict[str, Any]) -> str:
    method = "all sizes, one pass" if curve["method"] == "one pass" else "replayed at the marked sizes"
    bound = ", optimal for equal sizes only" if curve["optimal_for_equal_sizes"] else ""
    return f"{curve['policy']} ({method}{bound})"


def _cliffs(axis: Axes, study: Summary) -> None:
    """Mark each cliff once, in the colour of the first policy that has it, with the names of all."""
    at: dict[int, list[int]] = {}
    for number, curve in enumerate(study["curves"]):
        if curve["cliff_bytes"]:
            at.setdefault(curve["cliff_bytes"], []).append(number)
    for cliff, numbers in at.items():
        place = cliff / 1e9
        if place > axis.get_xlim()[1]:
            continue
        names = ", ".join(study["curves"][number]["policy"] for number in numbers)
        axis.axvline(place, color=_colour(numbers[0]), linestyle=":", linewidth=1)
        axis.text(
            place, 0.02, f"cliff: {names}", rotation=90, ha="right", va="bottom", fontsize=TEXT,
            color=_colour(numbers[0]), transform=axis.get_xaxis_transform(),
        )  # fmt: skip


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
