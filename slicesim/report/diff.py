"""Two results side by side: what was set differently, and which figures differ for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from slicesim.report.tables import Summary

#: Figures that lead the table, in this order; the others follow by how much they differ.
LEADING = (
    "decode.tokens_per_s", "decode.latency_ps.mean", "decode.latency_ps.p99", "decode.energy_pj_per_token.total",
    "prefill.ttft_ps.mean", "decode.miss_rate.slices", "decode.bytes.flash_read", "decode.quality.expected_rel_mse",
)  # fmt: skip


class Setting(NamedTuple):
    """A key of the resolved scenario: its value, and where that comes from, if it says."""

    value: Any
    source: str | None


class Difference(NamedTuple):
    """What differs. what: ``trace``, ``version``, ``scenario`` or ``figure``; ratio: second over first, of figures."""

    what: str
    key: str
    first: Any
    second: Any
    first_source: str | None = None
    second_source: str | None = None
    absolute: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Diff:
    """All differences, the most important ones first. notes: what a reader must know, one line each."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, first: Summary, second: Summary) -> Diff:
        """Compare two summaries of ``slicesim run``."""
        differences = (
            *_of_trace(first, second),
            *_of_version(first, second),
            *_of_scenarios(first["scenario"], second["scenario"]),
            *_of_figures(first, second),
        )
        return cls(differences, tuple(_notes(differences)))

    @property
    def is_like_for_like(self) -> bool:
        """Whether both replay the same trace."""
        return not any(one.key == "trace.sha256" for one in self.differences)

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "equal": not self.differences,
            "like_for_like": self.is_like_for_like,
            "notes": list(self.notes),
            "differences": [
                {key: value for key, value in one._asdict().items() if value is not None or key in ("first", "second")}
                for one in self.differences
            ],
        }


def settings(scenario: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield every key of a resolved scenario with dots, a coefficient as one."""
    for name, value in scenario.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and "value" in value:
            yield key, Setting(value["value"], value.get("source"))
        elif isinstance(value, Mapping):
            yield from settings(value, f"{key}.")
        else:
            yield key, Setting(value, None)


def _of_trace(first: Summary, second: Summary) -> Iterator[Difference]:
    for key in ("sha256", "path", "tokens"):
        one, other = first["trace"].get(key), second["trace"].get(key)
        if one != other:
            yield Difference("trace", f"trace.{key}", one, other)


def _of_version(first: Summary, second: Summary) -> Iterator[Difference]:
    one, other = first.get("slicesim_version"), second.get("slicesim_version")
    if one != other:
        yield Difference("version", "slicesim_version", one, other)


def _of_scenarios(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    """Values that differ, and sources that do although the values agree; the device's last, as there are most."""
    one, other = dict(settings(first)), dict(settings(second))
    nothing = Setting(None, None)
    keys = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key) and key != "trace.path"]
    for key in sorted(keys, key=lambda key: key.startswith("device.")):
        own, theirs = one.get(key, nothing), other.get(key, nothing)
        yield Difference("scenario", key, own.value, theirs.value, own.source, theirs.source)


def _of_figures(first: Summary, second: Summary) -> list[Difference]:
    one, other = (dict(_figures(summary)) for summary in (first, second))
    differing = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
    return sorted((_figure(key, one.get(key), other.get(key)) for key in differing), key=_rank)


def _figures(summary: Summary) -> Iterator[tuple[str, Any]]:
    """Yield figures with dotted names; what a constraint was called is no figure."""
    for phase in ("prefill", "decode"):
        for key, setting in settings(summary[phase], f"{phase}."):
            if not isinstance(setting.value, str):
                yield key, setting.value


def _figure(key: str, first: float | None, second: float | None) -> Difference:
    if first is None or second is None or isinstance(first, bool):
        return Difference("figure", key, first, second)
    return Difference(
        "figure", key, first, second, absolute=second - first, ratio=second / first if first and second else None
    )


def _rank(difference: Difference) -> tuple[int, float, str]:
    """Leading figures by their order; then from or to nothing, then by ratio; last what one of them does not have."""
    ratio, key = difference.ratio, difference.key
    if key in LEADING:
        return LEADING.index(key), 0.0, ""
    if difference.absolute is None:
        return len(LEADING) + 1, 0.0, key
    return len(LEADING), -abs(math.log(abs(ratio))) if ratio else -math.inf, key


def _notes(differences: tuple[Difference, ...]) -> Iterator[str]:
    if not differences:
        yield "equal: the same scenario, trace and figures"
        return
    keys = {one.key for one in differences}
    kinds = {one.what for one in differences}
    if "trace.sha256" in keys:
        yield "the traces differ: the figures are not like for like"
    elif "trace.tokens" in keys:
        yield "not equally many tokens of the trace were replayed: the figures are not like for like"
    if "figure" not in kinds:
        yield "all figures are equal"
    elif kinds == {"figure"}:
        yield "nothing was set differently, but the figures differ: another code of a policy, or a changed file"


class Unit(NamedTuple):
    """How people read a figure whose key holds ``mark``."""

    mark: str
    factor: float
    name: str


_UNITS = (Unit("_ps", 1e-9, "ms"), Unit("energy_pj", 1e-9, "mJ"), Unit(".bytes.", 1e-6, "MB"))
_PLAIN = Unit("", 1.0, "")

#: Figures that the table shows unless all are asked for.
MOST_FIGURES = 24


def diff_table(diff: Diff, names: tuple[str, str], everything: bool = False) -> Table:
    """Lay the differences out for the terminal; everything: all figures, not the most important ones alone."""
    table = Table(title=Text(f"{names[0]} and {names[1]}"))
    table.add_column("", style="dim")
    table.add_column("what differs", overflow="fold")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column("ratio", justify="right")
    before = ""
    for one in shown_differences(diff, everything):
        if before and one.what != before:
            table.add_section()
        kind, before = one.what if one.what != before else "", one.what
        unit = next((unit for unit in _UNITS if unit.mark in one.key), _PLAIN) if one.what == "figure" else _PLAIN
        cells = (_cell(one.first, one.first_source, unit), _cell(one.second, one.second_source, unit))
        absolute = "" if one.absolute is None else f"{one.absolute * unit.factor:+.4g}"
        label = one.key + f" ({unit.name})" * bool(unit.name)
        ratio = "" if one.ratio is None else f"{one.ratio:.3g}x"
        table.add_row(kind, Text(label), *map(Text, cells), absolute, ratio)
    return table


def shown_differences(diff: Diff, everything: bool) -> list[Difference]:
    """Return what the table shows."""
    figures = [one for one in diff.differences if one.what == "figure"]
    others = [one for one in diff.differences if one.what != "figure"]
    return [*others, *(figures if everything else figures[:MOST_FIGURES])]


def _cell(value: Any, source: str | None, unit: Unit) -> str:
    if unit.name and isinstance(value, (int, float)):
        value = float(value) * unit.factor
    return shown(value) + (f"\n({source})" if source else "")


def shown(value: Any) -> str:
    """Write a value of a scenario or a figure; a dash stands for none."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
