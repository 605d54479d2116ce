"""The picture of a search: every point by its objectives, two at a time, and the front of those that none beats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from slicesim.report.curves import COLOURS
from slicesim.report.figure import finish
from slicesim.report.label import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from slicesim.sweeps.figures import Figure
    from slicesim.sweeps.goals import Direction, Goals

#: Panels beside each other.
_ACROSS = 3

#: Figures of an axis that span more than this factor are drawn in logarithms.
_WIDE = 20

Objective = tuple["Figure", "Direction"]


def front_plot(frame: pd.DataFrame, goals: Goals, path: Path) -> None:
    """Draw one panel for every two objectives into a PNG. frame: a sweep's table, of two objectives or more."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    pairs = list(combinations(goals.objectives, 2))
    across = min(len(pairs), _ACROSS)
    down = -(-len(pairs) // across)
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            down, across, figsize=(max(7.0, 5 * across), 5 * down), layout="constrained", squeeze=False
        )
        for axis, pair in zip(axes.flat, pairs, strict=False):
            _panel(axis, frame, pair, with_line=len(pairs) == 1)
        for axis in axes.flat[len(pairs) :]:
            axis.set_visible(False)
        axes.flat[0].legend(frameon=False, fontsize=8, loc="upper right")
        finish(figure, f"{len(frame)} points, {int(frame['pareto'].sum())} on the Pareto front", _trace(frame), path)


def _panel(axis: Axes, frame: pd.DataFrame, pair: tuple[Objective, Objective], with_line: bool) -> None:
    (across, direction), (up, _) = pair
    x, y = (frame[figure.column].astype(float) / figure.factor for figure in (across, up))
    looks = (
        ("breaks a constraint", ~frame["feasible"], "x", "#999999"),
        ("feasible", frame["feasible"] & ~frame["pareto"], "o", COLOURS[0]),
        ("on the Pareto front", frame["pareto"], "D", COLOURS[1]),
    )
    for label, own, marker, colour in looks:
        if own.any():
            axis.plot(x[own], y[own], marker, color=colour, markersize=5, linestyle="", label=label)
    if with_line:  # of three objectives, the front seen from one side is no line
        line = pd.DataFrame({"x": x, "y": y})[frame["pareto"]].sort_values(["x", "y"])
        axis.step(
            line["x"], line["y"], where="post" if direction == "minimise" else "pre", color=COLOURS[1],
            linewidth=0.9, linestyle="--", zorder=0,
        )  # fmt: skip
    for (figure, aim), name, scale, values in (
        (pair[0], axis.set_xlabel, axis.set_xscale, x),
        (pair[1], axis.set_ylabel, axis.set_yscale, y),
    ):
        name(f"{figure.name} ({aim})")
        if values.min() > 0 and values.max() > _WIDE * values.min():
            scale("log")
    axis.grid(alpha=0.25, linewidth=0.5)


def _trace(frame: pd.DataFrame) -> dict[str, Any]:
    """Return what the figure says of its traces, as a summary would of one."""
    paths: Sequence[str] = list(dict.fromkeys(json.loads(text)["trace"]["path"] for text in frame["scenario"]))
    return {
        "path": paths[0] if len(paths) == 1 else f"{len(paths)} traces",
        **{label.field: bool(frame[label.field].any()) for label in LABELS},
    }
