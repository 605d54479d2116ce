"""Puts the page together: text, tables and charts in one file that asks the network for nothing.

Plain string templates do: the page has one shape. Whatever a user named is escaped where it enters (``escape``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from slicesim.errors import UserError
from slicesim.report.label import LABELS, label_of
from slicesim.report.page.charts import charts
from slicesim.report.page.excerpt import excerpts
from slicesim.report.page.figure import Figure
from slicesim.report.page.residency import maps
from slicesim.report.page.run import Run, named
from slicesim.report.page.tables import (
    chip,
    difference_table,
    escape,
    headline_table,
    scenario_table,
    trace_table,
)
from slicesim.report.saved import SavedRun, whole_results
from slicesim.report.tables import sureness, title
from slicesim.whole_file import whole_file

_HERE = files("slicesim.report.page")


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write one HTML page about the runs of ``folders``; the first one is what the others are held against.

    Raises UserError where a folder holds no run, or the page cannot be written.
    """
    twice = next((folder for number, folder in enumerate(folders) if folder in folders[:number]), None)
    if twice is not None:
        raise UserError(f"{twice}: is given twice")
    with whole_results(*folders):
        page = render(named([SavedRun.read(folder) for folder in folders]))
    with whole_file(out) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")  # names may hold half a letter
    return out


def render(runs: Sequence[Run]) -> str:
    """Return the page."""
    from plotly.offline import get_plotlyjs

    shown = list(charts(runs))
    mapped = list(maps(list(runs)))
    shown_events = list(excerpts(list(runs)))
    figures = [*shown, *(figure for figure, _ in mapped), *shown_events]
    fill = {
        "title": escape(_heading(runs)),
        "style": _read("page.css"),
        "badges": "".join(_badges(runs)),
        "runs": "".join(f"<li>{chip(run)} {escape(title(run.summary))}</li>" for run in runs) if len(runs) > 1 else "",
        "about": escape(title(runs[0].summary)) if len(runs) == 1 else "",
        "headline": headline_table(runs),
        "sureness": _sureness(runs),
        "charts": "".join(_figure(figure) for figure in shown) or _NOTHING,
        "maps": "".join(_figure(figure, _SLIDER) for figure, _ in mapped) or _NO_MAP,
        "timeline": "".join(map(_figure, shown_events)) or "<p>No timeline was recorded.</p>",
        "differences": _section("differences", "What differs between the runs", difference_table(runs))
        * (len(runs) > 1),
        "warnings": _warnings(runs),
        "traces": _each(runs, trace_table),
        "scenarios": _each(runs, scenario_table),
        "version": escape(str(runs[0].summary.get("slicesim_version", ""))),
        "data": _embedded({"figures": [f.describe() for f in figures], "maps": [frames for _, frames in mapped]}),
        "plotly": get_plotlyjs(),
        "script": _read("page.js"),
    }
    return Template(_read("page.html")).substitute(fill)


_NOTHING = "<p>Nothing was decoded: there is nothing to draw.</p>"
_NO_MAP = "<p>These results hold no snapshots of a cache: a recorded load has none, nor have older results.</p>"
_SLIDER = (
    '<div class="slider"><button type="button" aria-label="play">&#9654;</button>'
    '<input type="range" min="0" value="0" aria-label="moment of the run"><output></output></div>'
)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _embedded(data: object) -> str:
    """Write data as JSON that cannot end the element it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _heading(runs: Sequence[Run]) -> str:
    return runs[0].label if len(runs) == 1 else " / ".join(run.label for run in runs)


def _badges(runs: Sequence[Run]) -> Iterator[str]:
    """Say what the traces are where they are not recordings of a real model."""
    for label in LABELS:
        bearing = [run for run in runs if label_of(run.summary["trace"]) == label]
        if bearing:
            whose = "" if len(bearing) == len(runs) else f" ({', '.join(run.label for run in bearing)})"
            yield f'<p class="badge"><b>{label.capitals} TRACE</b> {escape(label.meaning + whose)}</p>'


def _sureness(runs: Sequence[Run]) -> str:
    alike: dict[str, list[str]] = {}
    for run in runs:
        alike.setdefault(sureness(run.intervals), []).append(run.label)
    if len(runs) == 1:
        return escape(next(iter(alike))) + "."
    said = "; ".join(f"{', '.join(labels)}: {text}" for text, labels in alike.items())
    return escape(said) + ". Figures of decode, but for the time to first token; 2.00x: twice that of the first run."


def _figure(figure: Figure, below: str = "") -> str:
    wide = ' class="wide"' * figure.is_wide
    return (
        f'<figure{wide}><h3>{figure.heading}</h3><div class="chart" id="{figure.key}"></div>{below}'
        f"<figcaption>{figure.reading}</figcaption></figure>"
    )


def _section(key: str, heading: str, content: str) -> str:
    return f'<section id="{key}"><h2>{heading}</h2>{content}</section>'


def _warnings(runs: Sequence[Run]) -> str:
    said = [(run, escape(warning)) for run in runs for warning in run.summary["warnings"]]
    whose = [f"<li>{chip(run) if len(runs) > 1 else ''}{warning}</li>" for run, warning in said]
    return _section("warnings", "Warnings", f"<ul>{''.join(whose)}</ul>") if said else ""


def _each(runs: Sequence[Run], content: Callable[[Run], str]) -> str:
    if len(runs) == 1:
        return content(runs[0])
    return "".join(f"<details><summary>{chip(run)}</summary>{content(run)}</details>" for run in runs)
