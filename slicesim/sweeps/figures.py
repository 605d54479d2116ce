"""Figures of a sweep by name: the columns of its table, and the same in units that people think in."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

#: Units that may stand in a name, by the one that the table has: 1 of the former is so many of the latter.
_UNITS = {
    "ps": {"ns": 1e3, "us": 1e6, "ms": 1e9, "s": 1e12},
    "pj": {"nj": 1e3, "uj": 1e6, "mj": 1e9, "j": 1e12},
}

#: What a summary holds only where there was a prompt, or a miss-rate target.
_SOMETIMES = (
    *(f"prefill.ttft_ps.{part}" for part in ("mean", "p50", "p95", "p99")),
    *(f"decode.constraint.{part}" for part in ("target", "active_tokens", "rate", "strength_mean", "strength_last")),
)


@dataclass(frozen=True)
class Figure:
    """A figure as a sweep file names it. factor: units of the column in one unit of the name."""

    name: str
    column: str
    factor: float

    @classmethod
    def of(cls, name: str) -> Figure:
        """Look a name up: a column, or one with another unit (``latency_ms`` for ``latency_ps``).

        Raises ValueError where there is no such figure.
        """
        names = _names()
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "see the columns decode.* and prefill.* of sweep.parquet"
            raise ValueError(f"no such figure ({hint})")
        return names[name]

    def value(self, figures: Mapping[str, Any]) -> float | None:
        """Return the figure in the unit of its name; None where a point has none. figures: by column."""
        found = figures.get(self.column)
        return None if found is None else float(found) / self.factor


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary's figures under the names of the table's columns."""
    return {name: value for phase in ("decode", "prefill") for name, value in _leaves(phase, summary[phase])}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}", part)
    else:
        yield name, value


@cache
def _names() -> dict[str, Figure]:
    """Return every name that means a figure. An empty run's summary tells which there are."""
    from slicesim.report.summary import summarise
    from slicesim.rows import Rows

    columns = [name for name in figures(summarise(Rows(0).phases)) if name != "prefill.ttft_ps"]
    names: dict[str, Figure] = {}
    for column in (*columns, *_SOMETIMES):
        for name, factor in _spellings(column):
            names.setdefault(name, Figure(name, column, factor))
    return names


def _spellings(column: str) -> Iterator[tuple[str, float]]:
    yield column, 1.0
    parts = column.split(".")
    for place, part in enumerate(parts):
        words = part.split("_")
        for at, word in enumerate(words):
            for unit, factor in _UNITS.get(word, {}).items():
                renamed = "_".join([*words[:at], unit, *words[at + 1 :]])
                yield ".".join([*parts[:place], renamed, *parts[place + 1 :]]), factor
