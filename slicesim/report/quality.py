"""Quality in the loop: the table for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.table import Table

#: A part of a study's summary.
Part = dict[str, Any]
#: (the row's quality, its decode part; None for the plain model) -> text.
Cell = Callable[[Part, Part | None], str]


class Column(NamedTuple):
    """One figure of the table."""

    heading: str
    cell: Cell


def _quality(key: str, factor: float, form: str) -> Cell:
    return lambda quality, _: _text(quality[key], factor, form)


def _decode(*path: str, factor: float, form: str) -> Cell:
    def cell(_: Part, decode: Part | None) -> str:
        node: Any = decode
        for key in path:
            node = None if node is None else node[key]
        return _text(node, factor, form)

    return cell


def _change(quality: Part, decode: Part | None) -> str:
    """Change of the perplexity in per cent; the error of the mean of the paired differences beside it."""
    if decode is None:
        return "-"
    error = quality["nll_change_standard_error"]
    beside = "" if error is None else f" ± {100 * error * quality['perplexity_ratio']:.2f}"
    return f"{100 * (quality['perplexity_ratio'] - 1):+.2f}{beside}"


def _lost(_: Part, decode: Part | None) -> str:
    if decode is None:
        return "-"
    lost = [decode["quality"][name] for name in ("substituted_mass", "dropped_mass")]
    return "-" if None in lost else f"{100 * sum(lost):.1f}"


def _text(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else form.format(value * factor)


COLUMNS = (
    Column("perplexity", _quality("perplexity", 1, "{:.3f}")),
    Column("change %", _change),
    Column("accuracy %", _quality("accuracy", 100, "{:.2f}")),
    Column("agreement %", _quality("agreement", 100, "{:.2f}")),
    Column("miss rate %", _decode("miss_rate", "slices", factor=100, form="{:.2f}")),
    Column("MSB miss %", _decode("miss_rate", "msb", factor=100, form="{:.2f}")),
    Column("high mass %", _decode("quality", "high_mass", factor=100, form="{:.1f}")),
    Column("lost mass %", _lost),
    Column("ms/token", _decode("latency_ps", "mean", factor=1e-9, form="{:.1f}")),
    Column("mJ/token", _decode("energy_pj_per_token", "total", factor=1e-9, form="{:.1f}")),
)
AT_ONCE = Column("perplexity\nas one batch", _quality("perplexity_at_once", 1, "{:.3f}"))


def quality_table(study: Part) -> Table:
    """Return one row for each policy, the plain model first."""
    columns = [*COLUMNS]
    if any(row["quality"]["perplexity_at_once"] is not None for row in study["rows"]):
        columns.insert(2, AT_ONCE)
    table = Table(title=quality_title(study), caption=quality_caption(study))
    table.add_column("policy")
    for column in columns:
        table.add_column(column.heading, justify="right")
    for row in study["rows"]:
        table.add_row(row["policy"], *(column.cell(row["quality"], row["decode"]) for column in columns))
    return table


def quality_title(study: Part) -> str:
    """Name the model, what it stands for, and what was set."""
    live, scenario = study["live_model"], study["scenario"]
    amat, cache = scenario["amat"], scenario["cache"]
    who = f"micro model {live['name']}" if live["micro_model"] else live["path"]
    bits = f"{amat['high_bits']}/{amat['low_bits']} bits" if study["weights"] == "amat" else "original weights"
    return (
        f"Quality in the loop: {who}, sizes of {study['model']['name']} on {scenario['device']['name']}, "
        f"{bits}, {cache['capacity_gb']:g} GB, {scenario['schedule']['overlap']} overlap"
    )


def quality_caption(study: Part) -> str:
    """Say what was scored, and that a micro model's figures are not the real one's."""
    texts, live = study["texts"], study["live_model"]
    caption = (
        f"closed loop, token by token: {texts['scored_tokens']} tokens of {', '.join(texts['names'])} "
        f"in {texts['requests']} request(s); non-expert weights as they are ({live['dtype']})"
    )
    if not live["micro_model"]:
        return caption
    warning = f"MICRO MODEL: quality and routing are a tiny model's, not those of {study['model']['name']}"
    return f"{warning}\n{caption}"
