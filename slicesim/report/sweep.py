"""Sweeps: the table for the terminal, and what ``--json`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from slicesim.report.label import LABELS
from slicesim.version import __version__

if TYPE_CHECKING:
    from slicesim.sweeps import Outcome

#: Rows that a terminal is shown.
_SHOWN = 40

#: Column of the table of results, heading, factor and form.
_FIGURES = (
    ("decode.tokens_per_s", "tokens/s", 1.0, "{:.2f}"),
    ("decode.latency_ps.mean", "ms/token", 1e-9, "{:.1f}"),
    ("decode.energy_pj_per_token.total", "mJ/token", 1e-9, "{:.1f}"),
    ("decode.miss_rate.slices", "miss rate %", 100.0, "{:.2f}"),
    ("decode.quality.expected_rel_mse", "rel. MSE", 1.0, "{:.4f}"),
)


def sweep_table(outcome: Outcome) -> Table:
    """Return the headline figures of the first points."""
    frame = outcome.frame
    lines = [f"{own.capitals} traces: {own.meaning}" for own in LABELS if frame[own.field].any()]
    more = len(frame) - _SHOWN
    if more > 0:
        lines.insert(0, f"and {more} more points in sweep.parquet")
    table = Table(title=f"{len(frame)} points, decode", caption="\n".join(lines) or None)
    for name in ("policy", *outcome.keys):
        table.add_column(name, justify="left" if name == "policy" else "right", overflow="fold")
    for _, heading, _, _ in _FIGURES:
        table.add_column(heading, justify="right")
    for record in _records(outcome)[:_SHOWN]:
        figures = [
            "-" if record[name] is None else form.format(record[name] * factor) for name, _, factor, form in _FIGURES
        ]
        table.add_row(*(_word(record[name]) for name in ("policy", *outcome.keys)), *figures)
    return table


def sweep_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything as plain data; the resolved scenario of each point stays in its file."""
    records = _records(outcome)
    for record in records:
        del record["scenario"]
    return {
        "slicesim_version": __version__,
        "folder": str(outcome.folder),
        "grid": list(outcome.keys),
        "found": outcome.found,
        "ran": outcome.ran,
        "points": records,
    }


def sweep_warnings(outcome: Outcome) -> list[str]:
    """Return each warning once, with the policy that it was given for."""
    pairs = zip(outcome.frame["policy"], outcome.frame["warnings"], strict=True)
    return list(dict.fromkeys(f"{policy}: {warning}" for policy, warning in pairs if warning))


def _records(outcome: Outcome) -> list[dict[str, Any]]:
    frame = outcome.frame
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[return-value]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
