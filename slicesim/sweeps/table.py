"""From the summaries of points to one table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_object_dtype

from slicesim.report.label import flags
from slicesim.sweeps.figures import figures
from slicesim.sweeps.goals import NO_GOALS, Goals


def row(values: Mapping[str, Any], digest: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return one point's row: keys of the grid, policy, figures with dotted names, and where they come from."""
    return {
        **{key: _cell(value) for key, value in values.items()},
        "policy": summary["policy"],
        **figures(summary),
        "warnings": "; ".join(summary["warnings"]),
        **flags(summary["trace"]),
        "trace_sha256": summary["trace"]["sha256"],
        "slicesim_version": summary["slicesim_version"],
        "point": digest,
        "scenario": json.dumps(summary["scenario"]),
    }


def table(rows: list[dict[str, Any]], goals: Goals = NO_GOALS) -> pd.DataFrame:
    """Join rows, each judged by the goals; a figure that a point does not have is null there."""
    frame = pd.DataFrame({name: [row.get(name) for row in rows] for name in _names(rows)})
    for name in filter(lambda name: is_object_dtype(frame[name]), frame.columns):
        column = frame[name]
        kinds = {type(value) for value in column.dropna()}
        if not kinds:
            frame[name] = np.nan
        elif len(kinds) > 1:
            frame[name] = [None if value is None else str(value) for value in column]
    judged, after = goals.columns(rows), list(frame.columns).index("policy") + 1 if goals else 0
    for name in reversed(judged.columns):
        frame.insert(after, name, judged[name])
    return frame


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """Names of all columns; a group of figures that some points lack as a whole is no column of its own."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    figures = [name for name in names if name.startswith(("decode.", "prefill."))]
    groups = {name[:end] for name in figures for end, letter in enumerate(name) if letter == "."}
    return [name for name in names if name not in groups]


def _cell(value: Any) -> Any:
    """A value of the grid in one cell: the number of a coefficient, JSON of a mapping or a list."""
    if isinstance(value, Mapping) and "value" in value:
        return value["value"]
    return json.dumps(value) if isinstance(value, (Mapping, list)) else value
