"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

from slicesim.report.intervals import Intervals
from slicesim.report.label import label_of, leading_kind

#: Below so many requests an interval over them is not to be relied on.
FEW = 10

#: What ``summary.json`` holds.
Summary = dict[str, Any]


class Line(NamedTuple):
    """A headline figure as text, and how: its path in the summary's phase, a factor to its unit, a format."""

    label: str
    prefill: str
    decode: str
    path: tuple[str, ...] = ()
    factor: float = 1.0
    form: str = "{}"


def figure(part: Summary, path: Sequence[str]) -> float | None:
    """Look a figure up in a part of the summary."""
    node: Any = part
    for key in path:
        node = node[key]
    return None if node is None else float(node)


def flash_bytes_per_token(part: Summary) -> float | None:
    """Bytes read from flash for one token."""
    return part["bytes"]["flash_read"] / part["tokens"] if part["tokens"] else None


def provenance(summary: Summary) -> str:
    """One line on the trace; a synthetic one, and one of a micro model, is called so."""
    trace = summary["trace"]
    found = label_of(trace)
    if found:
        return f"{found.capitals} trace {trace['path']}: {found.meaning}"
    return f"trace {trace['path']} ({trace['source']})"


def title(summary: Summary) -> str:
    """Name model, device, policy and what was set; a demand trace knows neither bits nor a cache's size."""
    scenario = summary["scenario"]
    amat, gigabytes = scenario["amat"], scenario["cache"]["capacity_gb"]
    decided = f"{amat['high_bits']}/{amat['low_bits']} bits, {gigabytes:g} GB, "
    return (
        f"{summary['model']['name']} on {scenario['device']['name']}: {summary['policy']}, "
        f"{'' if is_demand(summary) else decided}{scenario['schedule']['overlap']} overlap"
    )


def is_demand(summary: Summary) -> bool:
    """Tell whether a run replayed a recorded load, without routing."""
    return bool(summary["trace"].get("kind") == "demand")


def run_table(summary: Summary, intervals: Intervals) -> Table:
    """Return the headline figures of one run, prefill and decode apart; intervals where there are several requests."""
    several = intervals.requests["decode"] > 1
    table = Table(title=title(summary), caption=provenance(summary) + f"; {sureness(intervals)}" * several)
    table.add_column("")
    for phase in ("prefill", "decode"):
        table.add_column(phase, justify="right")
    if several:
        table.add_column("95 % interval", justify="right")
    for label, *cells, path, factor, form in headline(summary):
        ends = intervals.get("decode", *path)
        between = f"{cell(ends[0], factor, form)} - {cell(ends[1], factor, form)}" if ends else ""
        table.add_row(label, *cells, *[between] * several)
    return table


def sureness(intervals: Intervals) -> str:
    """Say in a few words what the intervals rest on."""
    count = intervals.requests["decode"]
    if count < 2:
        return "one request: no interval" if count else "no decode tokens"
    few = ", which is few: they are too narrow" if count < FEW else ""
    return f"95 % bootstrap intervals over {count} requests{few}"


def headline(summary: Summary) -> list[Line]:
    """Return the headline figures of a run, in the order in which they are read."""
    parts = (summary["prefill"], summary["decode"])

    def row(label: str, path: tuple[str, ...], factor: float, form: str) -> Line:
        prefill, decode = (cell(figure(part, path), factor, form) for part in parts)
        return Line(label, prefill, decode, path, factor, form)

    ttft, latency = summary["prefill"]["ttft_ps"], summary["decode"]["latency_ps"]
    milliseconds = (1e-9, "{:,.1f}")
    rows = [
        row("tokens", ("tokens",), 1, "{:,.0f}"),
        Line(
            "time to first token (ms, mean)",
            cell(ttft["mean"] if ttft else None, *milliseconds),
            "",
            ("ttft_ps", "mean"),
            *milliseconds,
        ),
    ]
    for name in ("mean", "p50", "p95", "p99"):
        label = "latency per token (ms): mean" if name == "mean" else f"   {name}"
        rows += [Line(label, "", cell(latency[name], *milliseconds), ("latency_ps", name), *milliseconds)]
    rows += [row("tokens/s", ("tokens_per_s",), 1, "{:,.2f}")]
    rows += [row("energy per token (mJ)", ("energy_pj_per_token", "total"), 1e-9, "{:,.2f}")]
    tiers = ("flash", "dram", "sram", "npu", "background")
    rows += [row(f"   {tier}", ("energy_pj_per_token", tier), 1e-9, "{:,.2f}") for tier in tiers]
    rows += [row("   without non-expert traffic", ("energy_pj_per_token", "expert"), 1e-9, "{:,.2f}")]
    rows += [row("miss rate of slice requests (%)", ("miss_rate", "slices"), 100, "{:.2f}")]
    rows += [row(f"   {kind} (%)", ("miss_rate", kind.lower()), 100, "{:.2f}") for kind in ("MSB", "LSB")]
    rows += [row("   by bytes (%)", ("miss_rate", "bytes"), 100, "{:.2f}")]
    flash = [cell(flash_bytes_per_token(part), 1e-6, "{:,.1f}") for part in parts]
    rows += [Line("flash read per token (MB)", flash[0], flash[1], ("flash_bytes_per_token",), 1e-6, "{:,.1f}")]
    if "optimum" in summary["decode"]:
        headroom = summary["decode"]["optimum"]["headroom"]
        rows += [Line("   over the least for the same look-ups", "", cell(headroom, 1, "{:.2f}x"))]
    denied = ("degraded", "substituted", "dropped")
    rows += [row(f"denied: {name}", ("denied", name), 1, "{:,.0f}") for name in denied]
    rows += [row("gate mass at high precision (%)", ("quality", "high_mass"), 100, "{:.1f}")]
    rows += [row("   at low precision (%)", ("quality", "low_mass"), 100, "{:.1f}")]
    rows += [row("   substituted (%)", ("quality", "substituted_mass"), 100, "{:.1f}")]
    rows += [row("   dropped (%)", ("quality", "dropped_mass"), 100, "{:.1f}")]
    rows += [row("expected relative MSE (open loop)", ("quality", "expected_rel_mse"), 1, "{:.4f}")]
    return rows


def cell(value: float | None, factor: float, form: str) -> str:
    """Write a figure, or a dash where there is none."""
    return "-" if value is None else form.format(value * factor)


def info_table(info: dict[str, Any]) -> Table:
    """Return what ``trace info`` knows; nested figures one row each."""
    table = Table(title=f"{leading_kind(info)} {info.get('name', '')}")
    table.add_column("")
    table.add_column("", overflow="fold")
    for key, value in info.items():
        if isinstance(value, dict):
            table.add_row(key, "")
            for inner, figure_ in value.items():
                table.add_row(f"   {inner}", _plain(figure_))
        else:
            table.add_row(key, _plain(value))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_plain(item) for item in value)
    return "-" if value is None else str(value)
