"""A chart of the page: what plotly.js draws, as plain data. No Python object of plotly is needed for it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slicesim.report.label import kind, label_of

Trace = dict[str, Any]


class Figure(NamedTuple):
    """One chart with its heading and how to read it (HTML). is_wide: it takes the whole width of the page."""

    key: str
    heading: str
    reading: str
    data: list[Trace]
    layout: dict[str, Any]
    is_wide: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what the page's script draws."""
        return {"id": self.key, "data": self.data, "layout": self.layout}


def text(value: object) -> str:
    """Escape what a user named: charts read mark-up in their texts."""
    return html.escape(str(value))


def layout(traces: Iterable[Mapping[str, Any]], across: str, up: str, **more: Any) -> dict[str, Any]:
    """Return the layout of a chart. traces: of the summaries it was drawn from; across, up: axis titles with units."""
    base: dict[str, Any] = {
        "xaxis": {"title": {"text": across}, "zeroline": False},
        "yaxis": {"title": {"text": up}, "rangemode": "tozero", "zeroline": False},
        "annotations": stamp(traces),
    }
    for name, value in more.items():
        base[name] = {**base[name], **value} if isinstance(base.get(name), dict) else value
    return base


def stamp(traces: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is written across a chart whose traces are not recordings of a real model."""
    found = next((trace for trace in traces if label_of(trace)), None)
    if found is None:
        return []
    return [
        {
            "text": kind(found).upper(), "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False,
            "textangle": -14, "opacity": 0.13, "font": {"size": 30, "color": "#808080"},
        }
    ]  # fmt: skip


def bars(name: str, x: Any, y: Any, colour: str, **more: Any) -> Trace:
    """Return bars."""
    return {
        "type": "bar", "name": text(name), "x": listed(x), "y": listed(y),
        "marker": {"color": colour, "line": {"width": 0}}, **more,
    }  # fmt: skip


def listed(values: Any) -> list[Any]:
    """Return an array as a list with five figures, which no eye tells from the whole number."""
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    return [float(f"{item:.5g}") if isinstance(item, float) else item for item in items]
