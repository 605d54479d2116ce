"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

#: What ``summary.json`` holds.
Summary = dict[str, Any]

#: Comparison columns: heading, where the figure stands in the summary's decode part, factor, format.
COLUMNS: tuple[tuple[str, tuple[str, ...], float, str], ...] = (
    ("tokens/s", ("tokens_per_s",), 1, "{:.2f}"),
    ("ms/token", ("latency_ps", "mean"), 1e-9, "{:.1f}"),
    ("mJ/token", ("energy_pj_per_token", "total"), 1e-9, "{:.1f}"),
    ("of it expert", ("energy_pj_per_token", "expert"), 1e-9, "{:.1f}"),
    ("miss rate %", ("miss_rate", "slices"), 100, "{:.2f}"),
    ("MSB miss %", ("miss_rate", "msb"), 100, "{:.2f}"),
    ("high mass %", ("quality", "high_mass"), 100, "{:.1f}"),
    ("lost mass %", ("quality", "lost_mass"), 100, "{:.1f}"),
    ("rel. MSE", ("quality", "expected_rel_mse"), 1, "{:.4f}"),
)


def figure(part: dict[str, Any], path: Sequence[str]) -> float | None:
    """Look a figure up in a summary part."""
    node: Any = part
    for key in path:
        node = node[key]
    return None if node is None else float(node)


def flash_mb_per_token(part: dict[str, Any]) -> float | None:
    """Megabytes read from flash for one token."""
    return part["bytes"]["flash_read"] / part["tokens"] / 1e6 if part["tokens"] else None


def provenance(summary: Summary) -> str:
    """One line on the trace; a synthetic one is called so."""
    trace = summary["trace"]
    kind = "SYNTHETIC trace" if trace["synthetic"] else "trace"
    return f"{kind} {trace['path']} ({trace['source']})"


def run_table(summary: Summary) -> Table:
    """Return the headline figures of one run, prefill and decode apart."""
    scenario = summary["scenario"]
    amat = scenario["amat"]
    table = Table(
        title=f"{summary['model']['name']} on {scenario['device']['name']}: {summary['policy']}, "
        f"{amat['high_bits']}/{amat['low_bits']} bits, {scenario['cache']['capacity_gb']:g} GB, "
        f"{scenario['schedule']['overlap']} overlap",
        caption=provenance(summary),
    )
    table.add_column("")
    for phase in ("prefill", "decode"):
        table.add_column(phase, justify="right")
    for label, *cells in _rows(summary):
        table.add_row(label, *cells)
    return table


def _rows(summary: Summary) -> list[tuple[str, str, str]]:
    parts = (summary["prefill"], summary["decode"])

    def row(label: str, path: Sequence[str], factor: float, form: str) -> tuple[str, str, str]:
        prefill, decode = (_cell(figure(part, path), factor, form) for part in parts)
        return label, prefill, decode

    ttft = summary["prefill"]["ttft_ps"]
    rows = [
        row("tokens", ("tokens",), 1, "{:,.0f}"),
        ("time to first token (ms, mean)", _cell(ttft["mean"] if ttft else None, 1e-9, "{:,.1f}"), ""),
        ("latency per token (ms): mean", "", _cell(summary["decode"]["latency_ps"]["mean"], 1e-9, "{:,.1f}")),
    ]
    rows += [(f"   {q}", "", _cell(summary["decode"]["latency_ps"][q], 1e-9, "{:,.1f}")) for q in ("p50", "p95", "p99")]
    rows += [row("tokens/s", ("tokens_per_s",), 1, "{:,.2f}")]
    rows += [row("energy per token (mJ)", ("energy_pj_per_token", "total"), 1e-9, "{:,.2f}")]
    tiers = ("flash", "dram", "sram", "npu", "background")
    rows += [row(f"   {tier}", ("energy_pj_per_token", tier), 1e-9, "{:,.2f}") for tier in tiers]
    rows += [row("   without non-expert traffic", ("energy_pj_per_token", "expert"), 1e-9, "{:,.2f}")]
    rows += [row("miss rate of slice requests (%)", ("miss_rate", "slices"), 100, "{:.2f}")]
    rows += [row(f"   {kind} (%)", ("miss_rate", kind.lower()), 100, "{:.2f}") for kind in ("MSB", "LSB")]
    rows += [row("   by bytes (%)", ("miss_rate", "bytes"), 100, "{:.2f}")]
    flash = [_cell(flash_mb_per_token(part), 1, "{:,.1f}") for part in parts]
    rows += [("flash read per token (MB)", flash[0], flash[1])]
    denied = ("degraded", "substituted", "dropped")
    rows += [row(f"denied: {name}", ("denied", name), 1, "{:,.0f}") for name in denied]
    rows += [row("gate mass at high precision (%)", ("quality", "high_mass"), 100, "{:.1f}")]
    rows += [row("   at low precision (%)", ("quality", "low_mass"), 100, "{:.1f}")]
    rows += [row("   substituted (%)", ("quality", "substituted_mass"), 100, "{:.1f}")]
    rows += [row("   dropped (%)", ("quality", "dropped_mass"), 100, "{:.1f}")]
    rows += [row("expected relative MSE (open loop)", ("quality", "expected_rel_mse"), 1, "{:.4f}")]
    return rows


def _cell(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else form.format(value * factor)


def comparison(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return one plain row per result: its figures, and energy and latency of the first over its own."""
    first = summaries[0]["decode"]
    rows = []
    for summary in summaries:
        decode = summary["decode"]
        part = {**decode, "quality": _with_lost_mass(decode["quality"])}
        row: dict[str, Any] = {"policy": summary["policy"], "constraint": decode["constraint"]["name"]}
        row |= {name: _scaled(figure(part, path), factor) for name, path, factor, _ in COLUMNS}
        row["flash MB/token"] = flash_mb_per_token(part)
        row["energy gain"] = _ratio(first["energy_pj_per_token"]["total"], part["energy_pj_per_token"]["total"])
        row["expert energy gain"] = _ratio(
            first["energy_pj_per_token"]["expert"], part["energy_pj_per_token"]["expert"]
        )
        row["latency gain"] = _ratio(first["latency_ps"]["mean"], part["latency_ps"]["mean"])
        rows.append(row)
    return rows


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Return the comparison as a table; gains are against the first row."""
    scenario = summaries[0]["scenario"]
    amat = scenario["amat"]
    table = Table(
        title=f"Decode, {summaries[0]['model']['name']}, {amat['high_bits']}/{amat['low_bits']} bits, "
        f"{scenario['cache']['capacity_gb']:g} GB, {scenario['schedule']['overlap']} overlap "
        f"(gains: {summaries[0]['policy']} / row)",
        caption=provenance(summaries[0]) + "; quality is an open-loop proxy",
    )
    formats = {name: form for name, _, _, form in COLUMNS}
    gains = ("energy gain", "expert energy gain", "latency gain")
    formats |= {"flash MB/token": "{:.1f}"} | dict.fromkeys(gains, "{:.2f}x")
    rows = comparison(summaries)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("policy", "constraint") else "right")
    for row in rows:
        table.add_row(*(_cell(v, 1, formats[k]) if k in formats else str(v) for k, v in row.items()))
    return table


def _with_lost_mass(quality: dict[str, Any]) -> dict[str, Any]:
    lost = [quality["substituted_mass"], quality["dropped_mass"]]
    return {**quality, "lost_mass": None if None in lost else sum(lost)}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ratio(first: float | None, other: float | None) -> float | None:
    return first / other if first and other else None


def info_table(info: dict[str, Any]) -> Table:
    """Return what ``trace info`` knows; nested figures one row each."""
    table = Table(title=f"{'SYNTHETIC trace' if info.get('synthetic') else 'trace'} {info.get('name', '')}")
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
