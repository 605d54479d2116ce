"""Policies side by side: the table, its file, and the picture of energy against quality."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from rich.table import Table

from slicesim.report.folder import SUMMARY, write_folder
from slicesim.report.label import flags
from slicesim.report.pareto import pareto_plot
from slicesim.report.tables import Summary, cell, figure, flash_bytes_per_token, provenance

if TYPE_CHECKING:
    from slicesim.comparison import Comparison


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
    """The reference policy's figure over this one's."""

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
    Column("headroom", "head-room", _decode("optimum", "headroom"), "{:.2f}x"),
    Column("miss_rate_slices", "miss rate %", _decode("miss_rate", "slices"), "{:.2f}", 100),
    Column("miss_rate_msb", "MSB miss %", _decode("miss_rate", "msb"), "{:.2f}", 100),
    Column("high_mass", "high mass %", _decode("quality", "high_mass"), "{:.1f}", 100),
    Column("lost_mass", "lost mass %", _lost_mass, "{:.1f}", 100),
    Column("expected_rel_mse", "rel. MSE", _decode("quality", "expected_rel_mse"), "{:.4f}"),
    Column("energy_gain", "energy gain", _gain("energy_pj_per_token", "total"), "{:.2f}x"),
    Column("expert_energy_gain", "expert energy gain", _gain("energy_pj_per_token", "expert"), "{:.2f}x"),
    Column("latency_gain", "latency gain", _gain("latency_ps", "mean"), "{:.2f}x"),
)


def comparison(compared: Comparison) -> dict[str, Any]:
    """Return the comparison as plain data, per decode token; gains are the reference policy's figure over the row's.

    headroom: flash bytes read over the least that any cache reads for the row's own look-ups (docs/bound.md).
    """
    reference = compared.reference.summary
    rows = [
        {
            "policy": own["policy"],
            "constraint": own["decode"]["constraint"]["name"],
            "objects": entry.objects,
            "offline": entry.offline,
            **{column.key: column.value(own, reference) for column in COLUMNS},
        }
        for entry in compared.entries
        for own in [entry.summary]
    ]
    trace = {name: reference["trace"][name] for name in ("path", "source", "sha256")} | flags(reference["trace"])
    return {
        "slicesim_version": reference["slicesim_version"],
        "scenario": {key: value for key, value in reference["scenario"].items() if key != "policy"},
        "model": reference["model"]["name"],
        "trace": trace,
        "gains_against": reference["policy"],
        "decode": rows,
        "left_out": [{"policy": policy, "reason": reason} for policy, reason in compared.left_out.items()],
    }


def comparison_table(compared: Comparison) -> Table:
    """Return the comparison as a table."""
    description = compared.describe()
    table = Table(
        title=f"Decode, {_heading(description)} (gains: {description['gains_against']} / row)",
        caption=provenance(description)
        + "; quality is an open-loop proxy; headroom: flash bytes / least for the same look-ups (docs/bound.md)",
    )
    table.add_column("policy", no_wrap=True)
    table.add_column("constraint")
    for column in COLUMNS:
        table.add_column(column.heading, justify="right")
    for row in description["decode"]:
        cells = [cell(row[column.key], column.factor, column.form) for column in COLUMNS]
        table.add_row(row["policy"] + " *" * row["offline"], row["constraint"], *cells)
    return table


def comparison_notes(compared: Comparison) -> list[str]:
    """Return what a reader must know, one line each: who knows the future, and which presets could not run."""
    offline = any(entry.offline for entry in compared.entries)
    return ["* knows the future"] * offline + [
        f"left out: {policy}: {reason}" for policy, reason in compared.left_out.items()
    ]


def write_comparison(compared: Comparison, folder: Path) -> Path:
    """Write summary.json, comparison.parquet, pareto.png and pareto.svg; the folder appears only when whole."""
    description = compared.describe()
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    files: dict[str, Callable[[Path], object]] = {
        SUMMARY: lambda path: path.write_text(text, encoding="utf-8"),
        "comparison.parquet": lambda path: pd.DataFrame(description["decode"]).to_parquet(path, index=False),
        "pareto.png": lambda path: pareto_plot(
            description["decode"], f"Energy and quality, {_heading(description)}", description["trace"], path
        ),
    }
    return write_folder(folder, files)


def _heading(description: dict[str, Any]) -> str:
    scenario = description["scenario"]
    amat = scenario["amat"]
    return (
        f"{description['model']}, {amat['high_bits']}/{amat['low_bits']} bits, "
        f"{scenario['cache']['capacity_gb']:g} GB, {scenario['schedule']['overlap']} overlap"
    )
