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

#: Warnings that a terminal is shown.
_WARNINGS = 10

#: Points shown where none keeps the constraints.
_NEAREST = 5

#: Column of the table of results, heading, factor and form.
_FIGURES = (
    ("decode.tokens_per_s", "tokens/s", 1.0, "{:.2f}"),
    ("decode.latency_ps.mean", "ms/token", 1e-9, "{:.1f}"),
    ("decode.energy_pj_per_token.total", "mJ/token", 1e-9, "{:.1f}"),
    ("decode.miss_rate.slices", "miss rate %", 100.0, "{:.2f}"),
    ("decode.quality.expected_rel_mse", "rel. MSE", 1.0, "{:.4f}"),
)


def sweep_table(outcome: Outcome) -> Table:
    """Return the headline figures of the first points; of a search for the best, those of the front."""
    frame, goals = outcome.frame, outcome.goals
    lines = [f"{own.capitals} traces: {own.meaning}" for own in LABELS if frame[own.field].any()]
    title, shown = _chosen(outcome)
    more = len(shown) - _SHOWN
    if more > 0:
        lines.insert(0, f"and {more} more points in sweep.parquet")
    table = Table(title=title, caption="\n".join(lines) or None)
    for name in ("policy", *outcome.keys):
        table.add_column(name, justify="left" if name == "policy" else "right", overflow="fold")
    usual = {name for name, *_ in _FIGURES}
    more_figures = [
        (own.column, own.name, 1 / own.factor, "{:.4g}") for own in goals.figures if own.column not in usual
    ]
    columns = [*_FIGURES, *more_figures]
    for _, heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for record in shown[:_SHOWN]:
        figures = [
            "-" if record.get(name) is None else form.format(record[name] * factor) for name, _, factor, form in columns
        ]
        table.add_row(*(_word(record[name]) for name in ("policy", *outcome.keys)), *figures)
    return table


def _chosen(outcome: Outcome) -> tuple[str, list[dict[str, Any]]]:
    """Return a heading, and the points that belong under it: the best ones where the sweep says what is good."""
    records, goals = _records(outcome), outcome.goals
    count = f"{len(records)} points"
    if not goals:
        return f"{count}, decode", records
    able = [record for record in records if record["feasible"]]
    if not able:
        nearest = sorted(records, key=lambda record: sum(max(0.0, by) for by in goals.score(record).violations))
        return f"none of {count} keeps the constraints; the nearest, decode", nearest[:_NEAREST]
    count = f"{count}, {len(able)} feasible" if goals.constraints else count
    if not goals.objectives:
        return f"{count}, decode", able
    front = sorted((record for record in able if record["pareto"]), key=lambda record: goals.score(record).values or ())
    found = "Pareto front" if len(goals.objectives) > 1 else f"{goals.objectives[0][1]} {goals.objectives[0][0].name}"
    return f"{found}: {len(front)} of {count}, decode", front


def sweep_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything as plain data; the resolved scenario of each point stays in its file."""
    records = _records(outcome)
    for record in records:
        del record["scenario"]
    return {
        "slicesim_version": __version__,
        "folder": str(outcome.folder),
        "grid": list(outcome.keys),
        "objectives": {figure.name: direction for figure, direction in outcome.goals.objectives},
        "constraints": {
            figure.name: limit.model_dump(exclude_none=True) for figure, limit in outcome.goals.constraints
        },
        "found": outcome.found,
        "ran": outcome.ran,
        "refused": list(outcome.refused),
        "points": records,
    }


def sweep_warnings(outcome: Outcome) -> list[str]:
    """Return each warning once, with the policy that it was given for, and what was left out."""
    pairs = zip(outcome.frame["policy"], outcome.frame["warnings"], strict=True)
    said = list(dict.fromkeys(f"{policy}: {warning}" for policy, warning in pairs if warning))
    more = len(said) - _WARNINGS
    if more > 0:
        said[_WARNINGS:] = [f"and {more} more like these: see the column warnings of sweep.parquet"]
    if outcome.refused:
        said.insert(0, f"left out, as no valid scenario: {len(outcome.refused)} drawn points; {outcome.refused[0]}")
    return said


def _records(outcome: Outcome) -> list[dict[str, Any]]:
    frame = outcome.frame
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[return-value]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
