"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from slicesim.report.label import flags, label_of, leading_kind

#: What ``summary.json`` holds.
Summary = dict[str, Any]


class Column(NamedTuple):
    """One figure of the comparison: its key for machines, its heading for people, where it comes from."""

    key: str
    heading: str
    value: Callable[[Summary, Summary], float | None]
    form: str
    factor: float = 1.0


def _decode(*path: str) -> Callable[[Summary, Summary], float | None]:
    return lambda own, first: figure(own["decode"], path)


def _gain(*path: str) -> Callable[[Summary, Summary], float | None]:
    """The first policy's figure over this one's."""

    def gain(own: Summary, first: Summary) -> float | None:
        reference, value = figure(first["decode"], path), figure(own["decode"], path)
        return reference / value if reference and value else None

    return gain


def _lost_mass(own: Summary, first: Summary) -> float | None:
    lost = [own["decode"]["quality"][name] for name in ("substituted_mass", "dropped_mass")]
    return None if None in lost else float(sum(lost))


COLUMNS = (
    Column("tokens_per_s", "tokens/s", _decode("tokens_per_s"), "{:.2f}"),
    Column("latency_ps", "ms/token", _decode("latency_ps", "mean"), "{:.1f}", 1e-9),
    Column("energy_pj", "mJ/token", _decode("energy_pj_per_token", "total"), "{:.1f}", 1e-9),
    Column("expert_energy_pj", "of it expert", _decode("energy_pj_per_token", "expert"), "{:.1f}", 1e-9),
    Column("flash_read_bytes", "flash MB/token", lambda own, _: flash_bytes_per_token(own["decode"]), "{:.1f}", 1e-6),
    Column("miss_rate_slices", "miss rate %", _decode("miss_rate", "slices"), "{:.2f}", 100),
    Column("miss_rate_msb", "MSB miss %", _decode("miss_rate", "msb"), "{:.2f}", 100),
    Column("high_mass", "high mass %", _decode("quality", "high_mass"), "{:.1f}", 100),
    Column("lost_mass", "lost mass %", _lost_mass, "{:.1f}", 100),
    Column("expected_rel_mse", "rel. MSE", _decode("quality", "expected_rel_mse"), "{:.4f}"),
    Column("energy_gain", "energy gain", _gain("energy_pj_per_token", "total"), "{:.2f}x"),
    Column("expert_energy_gain", "expert energy gain", _gain("energy_pj_per_token", "expert"), "{:.2f}x"),
    Column("latency_gain", "latency gain", _gain("latency_ps", "mean"), "{:.2f}x"),
)


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


def run_table(summary: Summary) -> Table:
    """Return the headline figures of one run, prefill and decode apart."""
    table = Table(title=title(summary), caption=provenance(summary))
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
    flash = [_cell(flash_bytes_per_token(part), 1e-6, "{:,.1f}") for part in parts]
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


def comparison(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Return the comparison as plain data, per decode token; gains are the first policy's figure over the row's."""
    first = summaries[0]
    rows = [
        {
            "policy": own["policy"],
            "constraint": own["decode"]["constraint"]["name"],
            **{column.key: column.value(own, first) for column in COLUMNS},
        }
        for own in summaries
    ]
    trace = {"path": first["trace"]["path"], "source": first["trace"]["source"], **flags(first["trace"])}
    return {"trace": trace, "gains_against": first["policy"], "decode": rows}


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Return the comparison as a table."""
    first = summaries[0]
    scenario = first["scenario"]
    amat = scenario["amat"]
    table = Table(
        title=f"Decode, {first['model']['name']}, {amat['high_bits']}/{amat['low_bits']} bits, "
        f"{scenario['cache']['capacity_gb']:g} GB, {scenario['schedule']['overlap']} overlap "
        f"(gains: {first['policy']} / row)",
        caption=provenance(first) + "; quality is an open-loop proxy",
    )
    table.add_column("policy")
    table.add_column("constraint")
    for column in COLUMNS:
        table.add_column(column.heading, justify="right")
    for own, row in zip(summaries, comparison(summaries)["decode"], strict=True):
        cells = [_cell(row[column.key], column.factor, column.form) for column in COLUMNS]
        table.add_row(own["policy"], own["decode"]["constraint"]["name"], *cells)
    return table


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
